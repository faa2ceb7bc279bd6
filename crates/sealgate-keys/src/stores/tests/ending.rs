//! Which certificates of our own keys end next.

use super::*;
use crate::secret_key_store::ending::{EndingKeys, Question, remote};
use crate::secret_key_store::{NewSecretKey, RemoteKey, RemoteStore, SecretKeyEntry};

on_both_databases! {
    the_newest_in_use_counts_and_a_few_are_named,
}

async fn the_newest_in_use_counts_and_a_few_are_named(bed: Bed) {
    let stores = bed.open().await;
    let set = async |sql: &'static str, owner: &str| {
        let changed = stores.database.execute(Statement::new(sql).bind(owner)).await.unwrap();
        assert!(changed > 0, "{owner}");
    };
    let ending = async |soon, named_max| {
        stores.administration().ending_secret_keys(Timestamp(soon), named_max).await.unwrap()
    };
    let none = EndingKeys { count: 0, ending: 0, first: Vec::new() };
    assert_eq!(ending(0, 5).await, none);
    for name in ["alice", "bob", "carol", "dora"] {
        generate(&stores, &format!("{name}@nec.example")).await;
    }
    set("UPDATE secret_keys SET not_after = 300 WHERE owner = $1", "carol@nec.example").await;
    set(
        "UPDATE secret_keys SET not_after = 100, not_before = 0 WHERE owner = $1",
        "bob@nec.example",
    )
    .await;
    set(
        "UPDATE secret_keys SET not_after = 200, state = 'compromised' WHERE owner = $1",
        "alice@nec.example",
    )
    .await;
    let found = ending(301, 3).await;
    let owners: Vec<_> =
        found.first.iter().map(|key| (key.owner.as_str(), key.not_after.0)).collect();
    assert_eq!((found.count, found.ending), (6, 4));
    assert_eq!(
        owners,
        [("bob@nec.example", 100), ("bob@nec.example", 100), ("carol@nec.example", 300)]
    );
    assert_eq!(ending(300, 3).await.ending, 2);
    // A successor.
    generate(&stores, "bob@nec.example").await;
    let found = ending(301, 1).await;
    assert_eq!((found.count, found.ending, found.first.len()), (6, 2, 1));
    assert_eq!(found.first[0].owner, "carol@nec.example");
    // A store outside is looked at key by key, to the same end.
    let keys = stores.administration().secret_keys(None).await.unwrap();
    let (elsewhere, here) = (
        remote(&Listed(keys), Question { soon: Timestamp(i64::MAX), named_max: 9 }).unwrap(),
        ending(i64::MAX, 9).await,
    );
    assert_eq!((elsewhere.count, elsewhere.ending, elsewhere.first.len()), (6, 6, 6));
    assert_eq!((here.count, here.ending, here.first.len()), (6, 6, 6));
}

/// Has these keys, of whom nothing but the list is asked.
#[derive(Debug)]
struct Listed(Vec<SecretKeyEntry>);

impl RemoteStore for Listed {
    fn find(&self, _owner: &str) -> Result<Vec<RemoteKey>, StoreError> {
        Ok(Vec::new())
    }
    fn list(&self) -> Result<Vec<SecretKeyEntry>, StoreError> {
        Ok(self.0.clone())
    }
    fn insert(&self, _keys: &[NewSecretKey]) -> Result<(), StoreError> {
        Ok(())
    }
    fn remove(&self, _owner: &str) -> Result<u64, StoreError> {
        Ok(0)
    }
    fn check(&self) -> Result<String, StoreError> {
        Ok(String::new())
    }
}
