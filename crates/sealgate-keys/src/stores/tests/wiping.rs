//! What was removed, or sealed under an old master key, is not to be found in the database's files.

use std::collections::HashSet;

use super::*;
use crate::administration::rotate_master_key;
use crate::database::Wiping;
use crate::trust_source::column;

on_both_databases! {
    where_the_server_keeps_what_was_removed_somebody_is_told,
}

/// Every part of every value that is sealed in the database now.
async fn sealed_parts(stores: &Stores) -> Vec<Vec<u8>> {
    let select = "SELECT wrapped FROM secret_keys UNION SELECT wrapped FROM own_authorities";
    let values = column(&stores.database, Statement::new(select), "wrapped").await.unwrap();
    values.iter().flat_map(|value| value.chunks_exact(PART_BYTES)).map(<[u8]>::to_vec).collect()
}

impl Bed {
    /// How many of the parts are in the database's files.
    fn found(&self, parts: &[Vec<u8>]) -> usize {
        let mut bytes = Vec::new();
        for name in ["sealgate.db", "sealgate.db-wal", "sealgate.db-shm", "sealgate.db-journal"] {
            bytes.extend(std::fs::read(self.path(name)).unwrap_or_default());
        }
        let there: HashSet<&[u8]> = bytes.windows(PART_BYTES).collect();
        parts.iter().filter(|part| there.contains(part.as_slice())).count()
    }

    /// What programs before this one left: pages that were given up and not wiped.
    async fn with_old_free_room(&self, stores: &Stores) {
        let mut connection = stores.database.sqlite_pool().acquire().await.unwrap();
        for sql in ["PRAGMA secure_delete = OFF", "DELETE FROM secret_keys WHERE owner LIKE 'old%'"]
        {
            sqlx::raw_sql(sql).execute(&mut *connection).await.unwrap();
        }
        sqlx::raw_sql("PRAGMA secure_delete = ON").execute(&mut *connection).await.unwrap();
    }
}

#[tokio::test]
async fn after_a_rotation_nothing_is_left_that_the_old_key_opens() {
    let bed = Bed::sqlite().await;
    let stores = bed.open().await;
    for name in 0..20 {
        generate(&stores, &format!("old{name}@nec.example")).await;
        generate(&stores, &format!("alice{name}@nec.example")).await;
    }
    let before = sealed_parts(&stores).await;
    bed.with_old_free_room(&stores).await;
    assert!(bed.found(&before) > 0);
    let rotation = rotate_master_key(&bed.config, None).await.unwrap();
    assert_eq!(rotation.remains, None);
    assert_eq!(bed.found(&before), 0, "of {}", before.len());
    let now = sealed_parts(&stores).await;
    assert_eq!(bed.found(&now), now.len(), "the test would find what is there");
}

#[tokio::test]
async fn a_key_that_was_removed_is_gone_from_the_files() {
    let bed = Bed::sqlite().await;
    let stores = bed.open().await;
    for name in 0..20 {
        generate(&stores, &format!("alice{name}@nec.example")).await;
    }
    let kept = sealed_parts(&stores).await;
    generate(&stores, "bob@nec.example").await;
    let mut gone = sealed_parts(&stores).await;
    gone.retain(|part| !kept.contains(part));
    assert!(bed.found(&gone) > 0);
    let administration = stores.administration();
    administration.remove_secret_keys(&owner("bob@nec.example")).await.unwrap();
    assert_eq!(administration.wipe_removed_keys().await, None);
    assert_eq!(bed.found(&gone), 0, "of {}", gone.len());
    assert_eq!(bed.found(&kept), kept.len());
}

/// The rotation is done all the same.
#[tokio::test]
async fn a_reader_of_what_was_there_before_only_puts_the_wiping_off() {
    let bed = Bed::sqlite().await;
    let stores = bed.open().await;
    generate(&stores, "alice@nec.example").await;
    let before = sealed_parts(&stores).await;
    let mut reader = stores.database.sqlite_pool().begin().await.unwrap();
    sqlx::query("SELECT id FROM secret_keys").fetch_all(&mut *reader).await.unwrap();
    let rotation = rotate_master_key(&bed.config, None).await.unwrap();
    assert_eq!(rotation.secrets, Some(3));
    let remains = rotation.remains.unwrap();
    assert!(remains.contains("rotate once more later"), "{remains}");
    assert!(bed.found(&before) > 0);
    reader.rollback().await.unwrap();
    assert_eq!(stores.database.wipe(Wiping::Removed).await, None);
    assert_eq!(bed.found(&before), 0);
}

async fn where_the_server_keeps_what_was_removed_somebody_is_told(bed: Bed) {
    let stores = bed.open().await;
    generate(&stores, "alice@nec.example").await;
    let remains = rotate_master_key(&bed.config, None).await.unwrap().remains;
    let is_server = matches!(bed.config.database, DatabaseUrl::Postgres(_));
    assert_eq!(remains.is_some(), is_server, "{remains:?}");
    assert!(remains.is_none_or(|said| said.contains("VACUUM FULL own_authorities, secret_keys")));
}

/// Long enough to be nowhere by chance.
const PART_BYTES: usize = 32;
