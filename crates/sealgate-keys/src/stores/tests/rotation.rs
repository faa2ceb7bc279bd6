//! The master key is rotated: by itself, under open stores, cut off at each step, twice at once, and with a row in the
//! way.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use sealgate_core::keys::Certificate;

use super::{Bed, address, fixture, generate, own, owner, signing};
use crate::administration::{Rotation, prepare_master_key, rotate_master_key};
use crate::authority::Algorithm;
use crate::database::Statement;
use crate::error::StoreError;
use crate::import::Material;
use crate::secret_source::SecretSource;
use crate::stores::{KeyQuery, Stores};

on_both_databases! {
    a_key_that_was_distributed_before_interrupts_nobody,
    a_rotation_cut_off_at_any_step_is_finished,
    a_row_that_the_old_key_does_not_open_stops_the_rotation,
    open_stores_go_on_after_a_rotation,
    whoever_has_only_the_old_key_writes_nothing_and_recovers,
}

async fn rotate(bed: &Bed) -> Rotation {
    rotate_master_key(&bed.config, None).await.unwrap()
}

/// Whether fresh stores open every secret.
async fn all_usable(bed: &Bed, keys: usize) {
    let stores = bed.open().await;
    let said = stores.administration().check_secret_keys().await.unwrap();
    assert_eq!(said, format!("{keys} usable"));
    stores.close().await;
}

impl Bed {
    fn key(&self) -> Vec<u8> {
        self.read("master.key")
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, key: &[u8]) {
        std::fs::write(self.path(name), key).unwrap();
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), mode).unwrap();
    }

    fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }
}

async fn open_stores_go_on_after_a_rotation(bed: Bed) {
    let stores = bed.open().await;
    generate(&stores, "alice@nec.example").await;
    let old = bed.key();
    let rotation = rotate(&bed).await;
    assert_eq!(rotation.secrets, Some(3), "two keys and the authority");
    assert_eq!(rotation.former, Some(bed.path("master.key.old")));
    assert_ne!(bed.key(), old);
    assert_eq!(bed.read("master.key.old"), old);
    assert!(!bed.has("master.key.new"));
    for name in ["master.key", "master.key.old"] {
        let mode = std::fs::metadata(bed.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // What writes first finds out as well as what reads first.
    generate(&stores, "bob@nec.example").await;
    rotate(&bed).await;
    assert_eq!(signing(&stores, "bob@nec.example").await.len(), 1);
    assert_eq!(signing(&stores, "alice@nec.example").await.len(), 1);
    all_usable(&bed, 4).await;
    // A copy of the old key opens no row, and is told what is wrong.
    bed.write("master.key", &old);
    std::fs::remove_file(bed.path("master.key.old")).unwrap();
    let refused = Stores::open(&bed.config).await.unwrap_err();
    assert!(matches!(refused, StoreError::WrongMasterKey { right: None, .. }), "{refused}");
    assert_eq!(rotate_master_key(&bed.config, None).await.unwrap_err(), refused);
    assert!(!bed.has("master.key.new"), "a key that nobody asked for");
}

async fn whoever_has_only_the_old_key_writes_nothing_and_recovers(bed: Bed) {
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("master.key");
    std::fs::copy(bed.path("master.key"), &copy).unwrap();
    let mut config = bed.config.clone();
    config.master_key = SecretSource::File(copy.clone());
    let other = Stores::open(&config).await.unwrap();
    generate(&other, "alice@nec.example").await;
    rotate(&bed).await;
    let bob = owner("bob@nec.example");
    let refused = other.administration().generate_secret_keys(&bob, Algorithm::P256).await;
    assert!(matches!(refused, Err(StoreError::WrongMasterKey { .. })), "{refused:?}");
    // What is brought along needs nothing that is sealed already, so that only the writing itself can find out.
    let refused = import(&other).await;
    assert!(matches!(refused, Err(StoreError::WrongMasterKey { .. })), "{refused:?}");
    let query = KeyQuery::Signing(address("alice@nec.example"));
    let refused = own(&other, query).await.unwrap_err();
    assert!(refused.0.contains("not the key that this database is sealed under"), "{refused:?}");
    assert!(refused.0.contains(copy.to_str().unwrap()), "{refused:?}");
    all_usable(&bed, 2).await;
    std::fs::copy(bed.path("master.key"), &copy).unwrap();
    assert_eq!(signing(&other, "alice@nec.example").await.len(), 1);
    generate(&other, "bob@nec.example").await;
    all_usable(&bed, 4).await;
    rotate(&bed).await;
    std::fs::copy(bed.path("master.key"), &copy).unwrap();
    import(&other).await.unwrap();
    all_usable(&bed, 5).await;
}

/// A key with its certificate from elsewhere.
async fn import(stores: &Stores) -> Result<Vec<Arc<Certificate>>, StoreError> {
    let mut material = Material::read(&fixture("keys/alice.sign.key"), None).unwrap();
    material.append(Material::read(&fixture("certs/alice.sign.crt"), None).unwrap());
    let keys = material.into_keys().unwrap();
    stores.administration().import_secret_keys(&owner("alice@smime.example"), keys).await
}

async fn a_key_that_was_distributed_before_interrupts_nobody(bed: Bed) {
    let prepared = prepare_master_key(&bed.config, None).unwrap();
    assert_eq!(prepared, bed.path("master.key.new"));
    assert_eq!(prepare_master_key(&bed.config, None).unwrap(), prepared, "the same again");
    let elsewhere = tempfile::tempdir().unwrap();
    let place = |name: &str| elsewhere.path().join(name);
    for name in ["master.key", "master.key.new"] {
        std::fs::copy(bed.path(name), place(name)).unwrap();
    }
    let mut config = bed.config.clone();
    config.master_key = SecretSource::File(place("master.key"));
    let other = Stores::open(&config).await.unwrap();
    generate(&other, "alice@nec.example").await;
    let key = bed.read("master.key.new");
    assert_eq!(rotate(&bed).await.secrets, Some(3));
    assert_eq!(bed.key(), key);
    assert_eq!(signing(&other, "alice@nec.example").await.len(), 1);
    generate(&other, "bob@nec.example").await;
    assert_eq!(rotate_master_key(&config, None).await.unwrap().secrets, None);
    assert_eq!(std::fs::read(place("master.key")).unwrap(), key);
    generate(&other, "carol@nec.example").await;
    all_usable(&bed, 6).await;
}

/// Each state of files and database that a process can leave that is killed.
async fn a_rotation_cut_off_at_any_step_is_finished(bed: Bed) {
    generate(&bed.open().await, "alice@nec.example").await;
    // The new key's file is made, the key not written.
    bed.write("master.key.new", b"");
    all_usable(&bed, 2).await;
    assert_eq!(rotate(&bed).await.secrets, Some(3));
    all_usable(&bed, 2).await;
    // The key is written, the database not sealed under it.
    prepare_master_key(&bed.config, None).unwrap();
    all_usable(&bed, 2).await;
    assert_eq!(rotate(&bed).await.secrets, Some(3));
    // The database is sealed under the new key, which is not in place; the old one's second name is not made, or is.
    for linked in [false, true] {
        let old = bed.key();
        rotate(&bed).await;
        let new = bed.key();
        bed.write("master.key.new", &new);
        std::fs::remove_file(bed.path("master.key")).unwrap();
        bed.write("master.key", &old);
        std::fs::remove_file(bed.path("master.key.old")).unwrap();
        if linked {
            std::fs::hard_link(bed.path("master.key"), bed.path("master.key.old")).unwrap();
        }
        all_usable(&bed, 2).await;
        assert_eq!(rotate(&bed).await.secrets, None);
        assert_eq!((bed.key(), bed.read("master.key.old")), (new, old));
        assert!(!bed.has("master.key.new"));
        all_usable(&bed, 2).await;
    }
    // A file that is none of ours is left alone, and the database with it.
    bed.write("master.key.new", b"minutes of a meeting");
    let refused = rotate_master_key(&bed.config, None).await.unwrap_err();
    assert!(refused.to_string().contains("not a master key"), "{refused}");
    assert_eq!(bed.read("master.key.new"), b"minutes of a meeting");
    all_usable(&bed, 2).await;
}

async fn a_row_that_the_old_key_does_not_open_stops_the_rotation(bed: Bed) {
    let stores = bed.open().await;
    generate(&stores, "alice@nec.example").await;
    let rename = "UPDATE secret_keys SET owner = 'mallory@nec.example' WHERE purpose = 'sign'";
    stores.database.execute(Statement::new(rename)).await.unwrap();
    let before = bed.key();
    let refused = rotate_master_key(&bed.config, None).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Corrupt { owner, .. } if owner.starts_with("mallory")));
    assert_eq!(bed.key(), before);
    let undo = "UPDATE secret_keys SET owner = 'alice@nec.example' WHERE purpose = 'sign'";
    stores.database.execute(Statement::new(undo)).await.unwrap();
    all_usable(&bed, 2).await;
    assert_eq!(rotate(&bed).await.secrets, Some(3));
}

#[tokio::test]
async fn only_one_rotates_at_a_time() {
    let bed = Bed::sqlite().await;
    let path = prepare_master_key(&bed.config, None).unwrap();
    let first = std::fs::File::open(&path).unwrap();
    first.lock().unwrap();
    let refused = rotate_master_key(&bed.config, None).await.unwrap_err().to_string();
    assert!(refused.contains("another rotation"), "{refused}");
    drop(first);
    rotate(&bed).await;
}

#[tokio::test]
async fn a_restored_database_is_told_which_key_it_needs() {
    let bed = Bed::sqlite().await;
    bed.open().await.close().await;
    let database = bed.read("sealgate.db");
    rotate(&bed).await;
    std::fs::write(bed.path("sealgate.db"), database).unwrap();
    for name in ["sealgate.db-wal", "sealgate.db-shm"] {
        let _ = std::fs::remove_file(bed.path(name));
    }
    let refused = Stores::open(&bed.config).await.unwrap_err().to_string();
    assert!(refused.contains("master.key.old is the right one"), "{refused}");
}

/// A link to the key, as deployments make it, stays one.
#[tokio::test]
async fn a_key_behind_a_link_is_rotated_where_it_is() {
    let mut bed = Bed::sqlite().await;
    let link = bed.path("link.key");
    std::os::unix::fs::symlink(bed.path("master.key"), &link).unwrap();
    bed.config.master_key = SecretSource::File(link.clone());
    let rotation = rotate(&bed).await;
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(rotation.key, bed.path("master.key").canonicalize().unwrap());
    all_usable_none(&bed).await;
}

async fn all_usable_none(bed: &Bed) {
    let stores = bed.open().await;
    let said = stores.administration().check_secret_keys().await.unwrap();
    assert!(said.starts_with("none"), "{said}");
}

#[tokio::test]
async fn a_file_with_the_key_in_use_is_no_file_for_the_new_one() {
    let bed = Bed::sqlite().await;
    let stores = bed.open().await;
    generate(&stores, "alice@nec.example").await;
    let key = bed.key();
    bed.write("copy.key", &key);
    for name in ["copy.key", "master.key"] {
        let refused = rotate_master_key(&bed.config, Some(&bed.path(name))).await.unwrap_err();
        assert!(matches!(&refused, StoreError::Input(why) if why.contains("in use")), "{refused}");
        assert_eq!(bed.read(name), key);
    }
    all_usable(&bed, 2).await;
    // Another file is, and the same call again finds that all is done.
    let next = bed.path("next.key");
    for secrets in [Some(3), None] {
        let rotation = rotate_master_key(&bed.config, Some(&next)).await.unwrap();
        assert_eq!((rotation.secrets, rotation.former), (secrets, None));
    }
    bed.write("master.key", &bed.read("next.key"));
    all_usable(&bed, 2).await;
}

#[tokio::test]
async fn a_credential_needs_a_file_for_the_new_key() {
    let mut bed = Bed::sqlite().await;
    bed.config.master_key = SecretSource::Credential("master".to_owned());
    let refused = rotate_master_key(&bed.config, None).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Input(why) if why.contains("--to-file")), "{refused}");
}

/// A copy of the key in use is no successor: nothing would be sealed anew, and the last former key would be lost.
#[tokio::test]
async fn the_key_in_use_is_no_successor() {
    let bed = Bed::sqlite().await;
    generate(&bed.open().await, "alice@nec.example").await;
    rotate(&bed).await;
    let (key, former) = (bed.key(), bed.read("master.key.old"));
    bed.write("master.key.new", &key);
    let refused = [
        rotate_master_key(&bed.config, None).await.map(|_| ()),
        prepare_master_key(&bed.config, None).map(|_| ()),
    ];
    for refused in refused {
        let why = refused.unwrap_err().to_string();
        assert!(why.contains("master.key.new") && why.contains("in use"), "{why}");
    }
    assert_eq!((bed.key(), bed.read("master.key.old")), (key, former));
    std::fs::remove_file(bed.path("master.key.new")).unwrap();
    assert_eq!(rotate(&bed).await.secrets, Some(3));
    all_usable(&bed, 2).await;
}

/// Copies of the database need the key that they were made under.
#[tokio::test]
async fn every_former_key_is_kept() {
    let bed = Bed::sqlite().await;
    let mut keys = vec![bed.key()];
    for _ in 0..3 {
        rotate(&bed).await;
        keys.push(bed.key());
    }
    let names = ["master.key.old.1", "master.key.old.2", "master.key.old", "master.key"];
    assert_eq!(names.map(|name| bed.read(name)).to_vec(), keys);
    let mode = std::fs::metadata(bed.path("master.key.old.1")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Who restored an old copy is told which it needs.
    let needed = bed.key();
    bed.write("master.key", &keys[0]);
    bed.write("master.key.old.2", &needed);
    let refused = Stores::open(&bed.config).await.unwrap_err().to_string();
    assert!(refused.contains("master.key.old.2 is the right one"), "{refused}");
}

/// Whoever made it may have it open.
#[tokio::test]
async fn no_key_is_written_into_a_file_that_was_there() {
    let bed = Bed::sqlite().await;
    let (file, key) = (bed.path("next.key"), bed.key());
    for mode in [0o644, 0o600] {
        let _ = std::fs::remove_file(&file);
        std::fs::write(&file, b"").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let mut opened = std::fs::File::open(&file).unwrap();
        prepare_master_key(&bed.config, Some(&file)).unwrap();
        assert_eq!(bed.read("next.key").len(), key.len());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let mut seen = Vec::new();
        std::io::Read::read_to_end(&mut opened, &mut seen).unwrap();
        assert_eq!(seen, b"", "{mode:o}");
    }
    // A device is none to be taken away, nor what a link leads to.
    let (link, elsewhere) = (bed.path("link"), bed.path("elsewhere"));
    std::fs::write(&elsewhere, b"").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    let refused = rotate_master_key(&bed.config, Some(&link)).await.unwrap_err().to_string();
    assert!(refused.contains("name another"), "{refused}");
    assert_eq!(bed.read("elsewhere"), b"");
    all_usable_none(&bed).await;
}
