//! `sealgate master-key rotate` as an administrator runs it: killed at any moment, with a systemd credential, and under a
//! running key server.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sealgate_keys::kmip::enumeration::usage;
use sealgate_keys::kmip::request::Parameters;
use sealgate_testkit::gate::Gate;
use sealgate_testkit::key_server::KeyServer;
use sealgate_testkit::process;

#[path = "support/kmip_client.rs"]
mod kmip_client;

use kmip_client::{BINARY, Kmip, configure, own_uid, relay};

const ALICE: &str = "alice@nec.example";

fn gate() -> Gate {
    let gate = Gate::init(BINARY, &["nec.example"]);
    for name in ["alice", "bob", "carol"] {
        gate.generate_key(&format!("{name}@nec.example"), "p256");
    }
    gate
}

fn rotation(gate: &Gate) -> Command {
    let mut command = Command::new(BINARY);
    command.current_dir(gate.dir()).args(["master-key", "rotate", "--config"]);
    command.arg(gate.configuration()).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// The kill comes at moments spread over the whole run. After each the database opens with what is on disk, and keys are
/// used and made.
#[test]
fn a_rotation_that_is_killed_at_any_moment_locks_nobody_out() {
    const KILLS: u32 = 24;
    let gate = gate();
    let time = || {
        let started = Instant::now();
        assert!(rotation(&gate).status().unwrap().success());
        started.elapsed()
    };
    let whole = time().min(time());
    let mut cut_off = 0;
    for kill in 0..KILLS {
        let mut running = rotation(&gate).stderr(Stdio::null()).spawn().unwrap();
        let moment = Instant::now() + whole * kill / KILLS;
        while Instant::now() < moment {
            std::thread::sleep(Duration::from_micros(200));
        }
        // SIGKILL.
        running.kill().unwrap();
        cut_off += u32::from(!running.wait().unwrap().success());
        let listed = gate.run(&["secret-key", "list"], b"");
        assert_eq!(listed.code, 0, "after kill {kill}: {}", listed.stderr);
        gate.must(&["secret-key", "generate", "dave@nec.example", "--algorithm", "p256"], b"");
        gate.must(&["secret-key", "remove", "dave@nec.example"], b"");
    }
    println!("{cut_off} of {KILLS} rotations were cut off");
    assert!(cut_off >= KILLS / 4, "only {cut_off} of {KILLS} were cut off");
    assert!(rotation(&gate).status().unwrap().success());
    assert!(!gate.dir().join("master.key.new").exists());
    let message = format!("From: {ALICE}\r\nTo: bob@nec.example\r\n\r\nhello\r\n");
    gate.must(&["seal", "--from", ALICE, "--to", "bob@nec.example"], message.as_bytes());
}

#[test]
fn a_credential_is_exchanged_by_hand_with_a_key_from_a_file() {
    let gate = gate();
    let credentials = gate.dir().join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::rename(gate.dir().join("master.key"), credentials.join("master")).unwrap();
    gate.configure(|config| {
        let table = toml::Table::from_iter([("credential".to_owned(), "master".into())]);
        config.insert("master_key".to_owned(), table.into());
    });
    let run = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--config").arg(gate.configuration());
        command.current_dir(gate.dir()).env("CREDENTIALS_DIRECTORY", &credentials);
        process::run(&mut command, b"")
    };
    let refused = run(&["master-key", "rotate"]);
    assert_eq!(refused.code, 65, "{}", refused.stderr);
    assert!(refused.stderr.contains("--to-file"), "{}", refused.stderr);
    run(&["secret-key", "show", ALICE]).expect_ok("nothing has changed");

    let rotate = ["master-key", "rotate", "--to-file", "next.key"];
    let said = String::from_utf8(run(&rotate).expect_ok("rotate")).unwrap();
    assert!(said.contains("7 secrets") && said.contains("next.key"), "{said}");
    assert!(said.contains("put it in the place of credential master"), "{said}");
    let before = run(&["secret-key", "show", ALICE]);
    assert_eq!(before.code, 78, "{}", before.stderr);
    assert!(before.stderr.contains("credential master: not the key"), "{}", before.stderr);
    let again = String::from_utf8(run(&rotate).expect_ok("the same again")).unwrap();
    assert!(again.contains("finishes a rotation"), "{again}");
    fs::rename(gate.dir().join("next.key"), credentials.join("master")).unwrap();
    run(&["secret-key", "show", ALICE]).expect_ok("with the new credential");
    run(&["secret-key", "generate", "erin@nec.example", "--algorithm", "p256"])
        .expect_ok("generate");
}

/// Else the relay's user could not read it where root rotates. Who is not root tries it with himself.
#[test]
fn the_new_key_belongs_to_whom_the_old_one_did() {
    const NOBODY: u32 = 65534;
    let gate = Gate::init(BINARY, &["nec.example"]);
    let key = gate.dir().join("master.key");
    let own = fs::metadata(&key).unwrap().uid();
    let user = if own == 0 { NOBODY } else { own };
    chown(&key, Some(user), None).unwrap();
    let prepared = gate.must(&["master-key", "rotate", "--prepare"], b"");
    assert!(String::from_utf8(prepared).unwrap().contains("master.key.new"));
    let checked = String::from_utf8(gate.run(&["check"], b"").stdout).unwrap();
    assert!(checked.contains("master.key.new is ready"), "{checked}");
    gate.must(&["master-key", "rotate"], b"");
    let made = fs::metadata(&key).unwrap();
    assert_eq!((made.uid(), made.mode() & 0o777), (user, 0o600));
    let checked = String::from_utf8(gate.run(&["check"], b"").stdout).unwrap();
    assert!(!checked.contains("is ready"), "{checked}");
}

#[test]
fn a_key_server_goes_on_after_a_rotation() {
    let gate = gate();
    configure(&gate, vec![relay(own_uid(&gate), &["*@nec.example"], &["sign"])], |_| {});
    let server = KeyServer::start(BINARY, &gate.configuration());
    let mut kmip = Kmip::unix(server.socket.as_ref().unwrap());
    let key = kmip.key_for(ALICE, usage::SIGN);
    assert!(kmip.sign(&key, Parameters::default()).is_ok());
    gate.must(&["master-key", "rotate"], b"");
    for name in ["alice", "bob", "carol"] {
        let key = kmip.key_for(&format!("{name}@nec.example"), usage::SIGN);
        assert!(kmip.sign(&key, Parameters::default()).is_ok(), "{name}: {}", server.log());
    }
}
