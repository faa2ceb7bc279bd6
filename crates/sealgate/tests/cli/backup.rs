//! `backup`: what was written last is in the copy, and what is no whole database is named.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sealgate_testkit::gate::Gate;

use super::bed::{Bed, bed_with_keys, checked, lay_servers};

const DORA: &str = "dora@nec.example";

/// A relay keeps the last writes in the log beside the file, so that a copy of the file alone has none of them.
#[test]
fn a_backup_of_a_running_relay_has_every_key_and_is_restored() {
    let mut gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
    gate.start();
    gate.generate_key(DORA, "p256");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let copy = gate.dir().join("copy.db");
    let said = String::from_utf8(gate.must(&["backup", &text(&copy)], b"")).unwrap();
    assert!(said.contains("copy.db") && said.contains("master.key"), "{said}");
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = gate.run(&["backup", &text(&copy)], b"");
    assert_eq!(again.code, 65, "{}", again.stderr);
    assert!(again.stderr.contains("copy.db: exists already"), "{}", again.stderr);

    gate.must(&["secret-key", "remove", DORA], b"");
    gate.stop();
    let database = gate.dir().join("sealgate.db");
    for name in ["sealgate.db-wal", "sealgate.db-shm"] {
        let _ = std::fs::remove_file(gate.dir().join(name));
    }
    std::fs::rename(&copy, &database).unwrap();
    gate.start();
    let listed = String::from_utf8(gate.must(&["secret-key", "list"], b"")).unwrap();
    assert_eq!(listed.matches(DORA).count(), 2, "{listed}");
}

#[test]
fn a_copy_that_cannot_be_made_leaves_nothing() {
    let bed = bed_with_keys();
    let error = bed.bad(&["backup", "away/copy.db"], 69);
    assert!(error.contains("away/copy.db"), "{error}");
    assert!(!bed.path("away").exists());
}

#[test]
fn check_finds_a_damaged_database() {
    let bed = bed_with_keys();
    let _server = lay_servers(&bed);
    let (status, is_good, _) = checked(&bed, "database");
    assert!(status == 0 && is_good);
    let mut bytes = std::fs::read(bed.path("sealgate.db")).unwrap();
    // Behind the tables' definitions, which are read when it is opened.
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xff);
    bed.write("sealgate.db", bytes);
    let (status, is_good, said) = checked(&bed, "database");
    assert!(status != 0 && !is_good, "{said}");
    assert!(said.contains("damaged") && said.contains("backup"), "{said}");
}

#[test]
fn a_database_that_cannot_be_written_says_who_must_be_able_to() {
    let bed = Bed::new();
    let configuration = bed.read("sealgate.toml");
    let elsewhere = configuration.replace("sqlite:sealgate.db", "sqlite:master.key/sealgate.db");
    bed.write("sealgate.toml", elsewhere);
    let error = bed.bad(&["secret-key", "list"], 69);
    assert!(error.contains("-wal") && error.contains("directory"), "{error}");
}
