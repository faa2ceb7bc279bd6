//! Which certificates of our own keys end next.

use super::*;
use crate::secret_key_store::ending::{EndingKey, EndingKeys, Question, in_use, remote};
use crate::secret_key_store::{NewSecretKey, RemoteKey, RemoteStore, SecretKeyEntry};

on_both_databases! {
    one_for_both_purposes_has_had_its_day_where_two_newer_ones_share_them,
    the_newest_in_use_counts_and_a_few_are_named,
}

async fn one_for_both_purposes_has_had_its_day_where_two_newer_ones_share_them(bed: Bed) {
    let stores = bed.open().await;
    let bob = "bob@nec.example";
    let set = async |change: &str| {
        let sql = format!("UPDATE secret_keys SET {change}");
        let changed = stores.database.execute(Statement::new(sql.leak())).await.unwrap();
        assert!(changed > 0, "{change}");
    };
    let in_use = async || {
        let (now, soon) = (Timestamp(0), Timestamp(301));
        stores.administration().ending_secret_keys(now, soon, 9).await.unwrap()
    };
    generate(&stores, bob).await;
    set("not_before = CASE purpose WHEN 'encrypt' THEN 1 ELSE 0 END, not_after = 300").await;
    set("purpose = 'both' WHERE purpose = 'sign'").await;
    let found = in_use().await;
    assert_eq!((found.count, found.ending), (2, 2), "{found:?}");
    generate(&stores, bob).await;
    let found = in_use().await;
    assert_eq!((found.count, found.ending), (2, 0), "{found:?}");
    set("state = 'compromised' WHERE purpose = 'encrypt' AND not_before > 1").await;
    let found = in_use().await;
    let purposes: Vec<_> = found.first.iter().map(|key| key.purpose.as_str()).collect();
    assert_eq!((purposes, found.ending), (vec!["encrypt", "sign"], 1));
    // And the other way round.
    set("purpose = 'both' WHERE purpose = 'sign'").await;
    let found = in_use().await;
    assert_eq!((found.count, found.ending), (1, 0), "{found:?}");
}

async fn the_newest_in_use_counts_and_a_few_are_named(bed: Bed) {
    let stores = bed.open().await;
    let set = async |sql: &'static str, owner: &str| {
        let changed = stores.database.execute(Statement::new(sql).bind(owner)).await.unwrap();
        assert!(changed > 0, "{owner}");
    };
    let ending_at = async |now, soon, named_max| {
        let (now, soon) = (Timestamp(now), Timestamp(soon));
        stores.administration().ending_secret_keys(now, soon, named_max).await.unwrap()
    };
    let ending = async |soon, named_max| ending_at(0, soon, named_max).await;
    let none = EndingKeys { count: 0, ending: 0, ended: 0, first: Vec::new() };
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
    // Who has left does not stand before those whose end can still be met.
    let found = ending_at(150, 301, 3).await;
    assert_eq!((found.count, found.ending, found.ended), (6, 4, 2));
    assert_eq!(found.first[0].owner, "carol@nec.example");
    assert!(found.first.iter().all(|key| key.not_after.0 >= 150), "{found:?}");
    // A successor.
    generate(&stores, "bob@nec.example").await;
    let found = ending(301, 1).await;
    assert_eq!((found.count, found.ending, found.first.len()), (6, 2, 1));
    assert_eq!(found.first[0].owner, "carol@nec.example");
    // A store outside is looked at key by key, to the same end.
    let keys = stores.administration().secret_keys(None).await.unwrap();
    let (elsewhere, here) = (
        remote(
            &Listed(keys),
            Question { now: Timestamp(0), soon: Timestamp(i64::MAX), named_max: 9 },
        )
        .unwrap(),
        ending(i64::MAX, 9).await,
    );
    assert_eq!((elsewhere.count, elsewhere.ending, elsewhere.first.len()), (6, 6, 6));
    assert_eq!((here.count, here.ending, here.first.len()), (6, 6, 6));
}

#[test]
fn a_store_outside_goes_by_the_same_rule() {
    let key = |purpose: &str, not_before| {
        let purpose = purpose.to_owned();
        let key =
            EndingKey { not_after: Timestamp(9), owner: "bob@nec.example".to_owned(), purpose };
        (Timestamp(not_before), key)
    };
    for (keys, kept) in [
        (vec![key("both", 1), key("sign", 2), key("encrypt", 3)], vec!["encrypt", "sign"]),
        (vec![key("both", 1), key("encrypt", 3)], vec!["encrypt", "both"]),
        (vec![key("sign", 1), key("encrypt", 1), key("both", 2)], vec!["both"]),
        (vec![key("sign", 2), key("sign", 1)], vec!["sign"]),
    ] {
        let found: Vec<_> = in_use(keys).into_iter().map(|key| key.purpose).collect();
        assert_eq!(found, kept);
    }
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
