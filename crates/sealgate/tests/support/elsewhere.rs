//! Keys and certificates that are elsewhere: what a gate is told about a directory server, a key management server, a
//! token and a key server, how its keys get there, and what is left in its own database.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use sealgate_testkit::gate::{Gate, set};
use sealgate_testkit::key_server::KeyServer;
use sealgate_testkit::process;
use sealgate_testkit::slapd::{ADMIN, ADMIN_PASSWORD, BASE, Person, Slapd};
use sealgate_testkit::softhsm::{self, SoftHsm};
use toml::{Table, Value};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_sealgate");

/// Certificates of others come from the directory server, and from nowhere else.
pub(crate) fn use_directory(gate: &Gate, directory: &Slapd) {
    gate.configure(|config| {
        set(config, &["public_keys", "stores"], vec!["ldap"]);
        set(config, &["public_keys", "ldap", "servers"], vec![directory.tls_url()]);
        set(config, &["public_keys", "ldap", "ca"], text(&directory.pki.root));
        set(config, &["public_keys", "ldap", "base"], BASE);
    });
}

/// Makes entries for our people, and publishes their certificates there as somebody who may write. The gate itself reads
/// without a name.
pub(crate) fn publish(gate: &Gate, directory: &mut Slapd, people: &[&str]) {
    for person in people {
        let address = (*person).to_owned();
        directory.add_person(&Person { address, ..Person::default() });
    }
    let password = gate.dir().join("directory-password");
    fs::write(&password, ADMIN_PASSWORD).unwrap();
    process::set_mode(&password, 0o600);
    let before = fs::read(gate.configuration()).unwrap();
    gate.set(&["public_keys", "ldap", "bind_dn"], ADMIN);
    gate.set(&["public_keys", "ldap", "password_file"], text(&password));
    gate.must(&["public-key", "publish"], b"");
    fs::write(gate.configuration(), before).unwrap();
    fs::remove_file(password).unwrap();
}

/// Describes a key management server at this port of localhost: the authority of its certificate, and our certificate and
/// key.
pub(crate) fn describe_kmip(gate: &Gate, port: u16, ca: &Path, certificate: &Path, key: &Path) {
    gate.configure(|config| {
        let kmip = |name: &'static str| ["secret_keys", "kmip", name];
        set(config, &kmip("servers"), vec![format!("localhost:{port}")]);
        set(config, &kmip("ca"), text(ca));
        set(config, &kmip("certificate"), text(certificate));
        set(config, &kmip("key"), text(key));
    });
}

/// Describes a token, and lets the gate's processes find it.
pub(crate) fn describe_token(gate: &mut Gate, token: &SoftHsm) {
    gate.set_environment(token.environment());
    gate.configure(|config| {
        set(config, &["secret_keys", "pkcs11", "module"], text(&token.module()));
        set(config, &["secret_keys", "pkcs11", "token"], softhsm::TOKEN);
        set(config, &["secret_keys", "pkcs11", "pin_file"], text(&token.pin_file()));
    });
}

/// Moves every embedded key to the store of this name, which is described, and has it used there. Gives what was said.
pub(crate) fn move_keys(gate: &Gate, store: &str) -> String {
    let said = gate.must(&["secret-key", "move", "--to", store], b"");
    gate.set(&["secret_keys", "store"], store);
    String::from_utf8(said).unwrap()
}

/// Starts a key server for the keys of a gate: on a unix socket, for processes of the user who runs the tests, who may
/// sign and decrypt for everybody.
pub(crate) fn serve_keys(key_host: &Gate) -> KeyServer {
    let uid = fs::metadata(key_host.dir()).unwrap().uid();
    let mut relay = Table::new();
    set(&mut relay, &["uid"], i64::from(uid));
    set(&mut relay, &["keys"], vec!["*"]);
    set(&mut relay, &["operations"], vec!["sign", "decrypt"]);
    key_host.configure(|config| {
        set(config, &["key_server", "socket"], text(&key_host.dir().join("keys.sock")));
        set(config, &["key_server", "relay"], vec![Value::Table(relay)]);
    });
    KeyServer::start(PROGRAM, &key_host.configuration())
}

/// Secret keys are at this key server, which never gives them out, and their certificates are of this authority.
pub(crate) fn use_key_server(gate: &Gate, keys: &KeyServer, key_host: &Gate) {
    let socket = keys.socket.as_ref().expect("a key server on a unix socket");
    gate.configure(|config| {
        let kmip = |name: &'static str| ["secret_keys", "kmip", name];
        set(config, &["secret_keys", "store"], "kmip");
        set(config, &kmip("servers"), vec![format!("unix:{}", socket.display())]);
        set(config, &kmip("get"), "never");
    });
    gate.must(&["anchor", "import", key_host.authority().to_str().unwrap()], b"");
}

/// One more relay that shares the database of the first and its master key.
pub(crate) fn another_relay(first: &Gate, domain: &str, url: &str) -> Gate {
    let gate = Gate::init(PROGRAM, &[domain]);
    fs::copy(first.dir().join("master.key"), gate.dir().join("master.key")).unwrap();
    gate.set(&["database", "url"], url);
    gate
}

/// Takes the master key from where the relay would find it: a relay whose keys are elsewhere has no use for it.
pub(crate) fn set_master_key_aside(gate: &Gate) {
    fs::rename(gate.dir().join("master.key"), gate.dir().join(ASIDE)).unwrap();
}

/// What a gate's own database holds, whatever its configuration says of where keys are: `list --json` of `secret-key` or
/// `public-key`.
pub(crate) fn embedded(gate: &Gate, kind: &str) -> Vec<serde_json::Value> {
    let mut config: Table = fs::read_to_string(gate.configuration()).unwrap().parse().unwrap();
    set(&mut config, &["secret_keys", "store"], "embedded");
    set(&mut config, &["public_keys", "stores"], vec!["embedded"]);
    if gate.dir().join(ASIDE).exists() {
        set(&mut config, &["master_key", "file"], ASIDE);
    }
    let path = gate.dir().join("embedded.toml");
    fs::write(&path, config.to_string()).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args([kind, "list", "--json", "--config"]).arg(&path);
    let listed = process::run(&mut command, b"").expect_ok(&format!("sealgate {kind} list"));
    serde_json::from_slice(&listed).unwrap()
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

const ASIDE: &str = "master.key.aside";
