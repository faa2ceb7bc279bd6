//! The key server on its host: its audit file, its memory, its socket, and another server beside it.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use sealgate_testkit::process::Running;

use super::*;

#[test]
fn a_line_that_is_taken_out_of_the_audit_shows() {
    let (gate, server) = start("p256", &["*"], USES);
    let mut kmip = connect(&server);
    let id = kmip.key_for(ALICE, usage::SIGN);
    for _ in 0..3 {
        assert!(kmip.sign(&id, Parameters::default()).is_ok());
    }
    drop(kmip);
    assert!(server.stop().success());
    let server = KeyServer::start(BINARY, &gate.configuration());
    assert!(connect(&server).sign(&id, Parameters::default()).is_ok());
    let path = gate.dir().join("audit.log");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 4);
    let said = String::from_utf8(verify_audit(&gate).expect_ok("the whole file")).unwrap();
    assert!(said.contains("4 lines") && said.contains("--expect"), "{said}");
    let last = said.lines().find_map(|line| line.strip_prefix("the last is ")).unwrap();
    let look = |expect: &str| {
        let arguments = ["key-server", "--verify-audit", "audit.log", "--expect", expect];
        gate.run(&arguments, b"")
    };
    assert!(look(last).ok());
    let cut: Vec<&str> = text.split_inclusive('\n').take(3).collect();
    std::fs::write(&path, cut.concat()).unwrap();
    assert!(verify_audit(&gate).ok(), "by itself it does not show");
    assert_eq!(look(last).code, 65);
    let without: Vec<&str> =
        text.lines().enumerate().filter(|(n, _)| *n != 1).map(|(_, l)| l).collect();
    std::fs::write(&path, without.join("\n") + "\n").unwrap();
    let ran = verify_audit(&gate);
    assert_eq!(ran.code, 65);
    assert!(ran.stderr.contains("audit.log:2:"), "{}", ran.stderr);
    // Never what was signed.
    assert!(!text.contains("a message") && !server.log().contains("a message"));
}

#[test]
fn nothing_is_done_that_cannot_be_audited() {
    let (gate, server) = start("p256", &["*"], &["sign", "destroy"]);
    let id = connect(&server).key_for(ALICE, usage::SIGN);
    assert!(server.stop().success());
    configure(&gate, vec![relay(own_uid(&gate), &["*"], &["sign", "destroy"])], |table| {
        table.insert("audit".to_owned(), "/dev/full".into());
    });
    let server = KeyServer::start(BINARY, &gate.configuration());
    let mut kmip = connect(&server);
    let refused = kmip.sign(&id, Parameters::default()).unwrap_err();
    assert_eq!(refused.reason, ResultReason::GeneralFailure);
    assert!(refused.message.contains("audit"), "{}", refused.message);
    let refused = kmip.call(Request::Destroy { id: id.clone() });
    assert_eq!(reason(refused), ResultReason::GeneralFailure);
    assert_eq!(kmip.keys_of(ALICE).len(), 2);
}

#[test]
fn no_core_file_is_left_of_a_server_with_keys() {
    let (_gate, server) = start("p256", &["*"], USES);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{line}");
}

/// What may not be dumped belongs to root, whoever runs it; another program of the same user shows that this says something.
#[test]
fn nobody_else_of_its_user_reads_the_memory_with_keys() {
    const NOBODY: u32 = 65534;
    let (gate, server) = start("p256", &["*"], USES);
    assert!(server.stop().success());
    let is_root = own_uid(&gate) == 0;
    let user = if is_root { NOBODY } else { u32::try_from(own_uid(&gate)).unwrap() };
    let start = |program: &str| {
        let mut command = Command::new(program);
        if is_root {
            command.uid(user).gid(user);
        }
        command.current_dir(gate.dir()).stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    };
    if is_root {
        for file in std::fs::read_dir(gate.dir()).unwrap() {
            std::os::unix::fs::chown(file.unwrap().path(), Some(user), Some(user)).unwrap();
        }
        std::os::unix::fs::chown(gate.dir(), Some(user), Some(user)).unwrap();
    }
    let owner_of_memory = |id: u32| std::fs::metadata(format!("/proc/{id}/mem")).unwrap().uid();
    let other = Running::start("cat", &mut start("cat"));
    process::await_that("another program runs", || owner_of_memory(other.id()) == user);

    for role in ["key-server", "relay"] {
        let mut command = start(BINARY);
        command.args([role, "--config"]).arg(gate.configuration());
        let mut server = Running::start(role, &mut command);
        let mut ready = String::new();
        BufReader::new(server.child().stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("ready "), "{role}: {ready}");
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
        assert!(status.contains(&format!("Uid:\t{user}\t")), "{role}: {status}");
        assert_eq!(owner_of_memory(server.id()), 0, "{role}");
    }
}

/// Two servers with the same keys, of which the first hangs: it takes connections and says nothing.
#[test]
fn mail_is_signed_with_keys_of_the_second_server_while_the_first_hangs() {
    let gate = Gate::init(BINARY, &["nec.example"]);
    gate.generate_key(ALICE, "p256");
    let servers = ["one", "two"].map(|name| {
        configure(&gate, vec![relay(own_uid(&gate), &["*"], USES)], |table| {
            table.insert("socket".to_owned(), format!("{name}.sock").into());
            table.insert("audit".to_owned(), format!("{name}.log").into());
        });
        let configuration = gate.dir().join(format!("{name}.toml"));
        std::fs::copy(gate.configuration(), &configuration).unwrap();
        KeyServer::start(BINARY, &configuration)
    });
    let relay_gate = Gate::init(BINARY, &["nec.example"]);
    relay_gate.must(&["anchor", "import", gate.authority().to_str().unwrap()], b"");
    let sockets: Vec<String> = servers
        .iter()
        .map(|server| format!("unix:{}", server.socket.as_ref().unwrap().display()))
        .collect();
    relay_gate.configure(|config| {
        set(config, &["secret_keys", "store"], "kmip");
        set(config, &["secret_keys", "kmip", "servers"], sockets);
        set(config, &["secret_keys", "kmip", "timeout_secs"], 7);
        set(config, &["secret_keys", "kmip", "get"], "never");
    });
    let mail = b"From: alice@nec.example\r\nTo: alice@nec.example\r\nSubject: keys\r\n\
                 Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@nec.example>\r\n\r\n\
                 The word is petunia.\r\n";
    let seal = ["seal", "--from", ALICE, "--to", ALICE];
    assert!(relay_gate.run(&seal, mail).ok());
    let signed_at = |name: &str| {
        let text = std::fs::read_to_string(gate.dir().join(name)).unwrap();
        text.matches("\"operation\":\"sign\"").count()
    };
    assert_eq!([signed_at("one.log"), signed_at("two.log")], [1, 0]);
    servers[0].signal("STOP");
    let sealed = relay_gate.must(&seal, mail);
    servers[0].signal("CONT");
    assert!(!String::from_utf8_lossy(&sealed).contains("petunia"));
    assert_eq!(signed_at("two.log"), 1);
}

#[test]
fn a_dead_servers_socket_is_replaced_and_a_living_ones_is_not() {
    let (gate, server) = start("p256", &["*"], USES);
    let configuration = gate.configuration();
    let mut second = Command::new(BINARY);
    second.args(["key-server", "--config"]).arg(&configuration);
    let ran = process::run(&mut second, b"");
    assert_eq!(ran.code, 69, "{}", ran.stderr);
    assert!(ran.stderr.contains("another server listens there"), "{}", ran.stderr);
    server.kill();
    assert!(gate.dir().join("keys.sock").exists());
    let server = KeyServer::start(BINARY, &configuration);
    assert_eq!(connect(&server).keys_of(ALICE).len(), 2);
    drop(server);
    gate.configure(|config| drop(config.remove("key_server")));
    let ran = gate.run(&["key-server"], b"");
    assert_eq!(ran.code, 78, "{}", ran.stderr);
    assert!(ran.stderr.contains("[key_server]"), "{}", ran.stderr);
}
