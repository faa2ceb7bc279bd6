//! Every file of `examples/`, started as it stands there with the servers that it names: what is replaced are listeners,
//! ports, and names and paths of this machine. Files that it names by relative paths are laid beside it.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

#[path = "support/elsewhere.rs"]
mod elsewhere;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use elsewhere::{
    PROGRAM, another_relay, describe_kmip, move_keys, serve_keys, set_master_key_aside, text,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use sealgate_testkit::gate::{Gate, Ready};
use sealgate_testkit::key_server::KeyServer;
use sealgate_testkit::nameless;
use sealgate_testkit::pki::{KeyKind, Pki, Reads};
use sealgate_testkit::postgres::Postgres;
use sealgate_testkit::process;
use sealgate_testkit::pykmip_server::PyKmipServer;
use sealgate_testkit::sink::Sink;
use sealgate_testkit::slapd::{Settings, Slapd};
use sealgate_testkit::softhsm::{PIN, SoftHsm};
use toml::{Table, Value};

/// Those that a test below starts.
const STARTED: [&str; 8] = [
    "before-exchange",
    "complete",
    "directory-and-token",
    "key-management-server",
    "key-server",
    "minimal",
    "relay-of-key-server",
    "several-relays",
];

#[test]
fn every_example_is_started_by_a_test() {
    let mut names: Vec<String> = fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, STARTED);
}

#[test]
fn the_minimal_example_starts() {
    Example::read("minimal").runs(Gate::init(PROGRAM, &["nec.example"]));
}

#[test]
fn the_complete_example_starts() {
    let example = Example::read("complete");
    let gate = Gate::init(PROGRAM, &["nec.example"]);
    lay_tls_files(gate.dir(), "tls");
    let dkim = ["genpkey", "-algorithm", "ed25519", "-out", "dkim.pem"];
    process::run(Command::new("openssl").current_dir(gate.dir()).args(dkim), b"")
        .expect_ok("openssl genpkey");
    fs::create_dir(gate.dir().join("crls")).unwrap();
    fs::write(gate.dir().join("crls/authority.crl"), revocation_list()).unwrap();
    example.runs(gate);
}

#[test]
fn the_example_before_exchange_starts_with_a_smart_host_and_secrets_from_systemd() {
    let mut example = Example::read("before-exchange");
    let mut gate = Gate::init(PROGRAM, &["nec.example"]);
    let files = lay_tls_files(gate.dir(), "tls");
    example.replace(&["tls", "certificate"], text(&files[0]));
    example.replace(&["tls", "key"], text(&files[1]));
    let database = format!("sqlite:{}", gate.dir().join("sealgate.db").display());
    example.replace(&["database", "url"], database);
    let smart_host = format!("smtp://{}", example.mail_server.address);
    example.replace(&["outside", "next_hop"], smart_host);
    // As systemd does it.
    let credentials = gate.dir().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let master_key = gate.dir().join("master.key");
    fs::rename(master_key, credentials.join("sealgate-master-key")).unwrap();
    gate.set_environment(vec![("CREDENTIALS_DIRECTORY".to_owned(), credentials.into())]);
    example.runs(gate);
}

#[test]
fn the_example_of_several_relays_starts_twice_with_one_postgresql_database() {
    let server = Postgres::shared();
    let url = server.socket_url(&server.create_database());
    let first = Gate::init_with(PROGRAM, &["nec.example"], &["--database", &url]);
    let second = another_relay(&first, "nec.example", &url);
    for gate in [first, second] {
        let mut example = Example::read("several-relays");
        example.replace(&["database", "url"], url.as_str());
        example.runs(gate);
    }
}

#[test]
fn the_example_of_a_directory_and_a_token_starts() {
    const SALES: &str = "sales@nec.example";
    let directory = Slapd::start(Settings::default());
    directory.change("ldapadd", ACCOUNT);
    let token = SoftHsm::new();
    let pki = Pki::new("Sales");
    let sales = pki.issue(SALES, KeyKind::Rsa2048, Reads::Unsaid);
    token.import_key(&sales.key, "vendor's name", "0a1b");
    let mut gate = Gate::init(PROGRAM, &["nec.example"]);
    gate.set_environment(token.environment());
    let beside = |name: &str| gate.dir().join(name);
    fs::copy(&sales.certificate, beside("sales.pem")).unwrap();
    fs::copy(&directory.pki.root, beside("directory-ca.pem")).unwrap();
    for (name, secret) in [("pin", PIN), ("directory-password", "secret")] {
        fs::write(beside(name), secret).unwrap();
        process::set_mode(&beside(name), 0o600);
    }
    set_master_key_aside(&gate);
    let mut example = Example::read("directory-and-token");
    example.replace(&["secret_keys", "pkcs11", "module"], text(&token.module()));
    example.replace(&["public_keys", "ldap", "servers"], vec![directory.tls_url()]);
    let gate = example.runs(gate);
    let shown = gate.must(&["secret-key", "list"], b"");
    assert!(String::from_utf8(shown).unwrap().contains(SALES), "a key that is named by its id");
}

#[test]
fn the_example_of_a_key_management_server_starts() {
    let server = PyKmipServer::start();
    let gate = Gate::init(PROGRAM, &["nec.example"]);
    gate.generate_key("alice@nec.example", "rsa2048");
    let beside = |name: &str| gate.dir().join(name);
    let [ca, certificate, key] = ["keys-ca.pem", "relay.pem", "relay.key"].map(beside);
    let client = server.client("gate");
    for (from, to) in [(&server.pki.root, &ca), (&client.0, &certificate), (&client.1, &key)] {
        fs::copy(from, to).unwrap();
    }
    process::set_mode(&key, 0o600);
    describe_kmip(&gate, server.port, &ca, &certificate, &key);
    move_keys(&gate, "kmip");
    set_master_key_aside(&gate);
    let mut example = Example::read("key-management-server");
    let servers = vec![format!("localhost:{}", server.port)];
    example.replace(&["secret_keys", "kmip", "servers"], servers);
    let gate = example.runs(gate);
    let listed = gate.must(&["secret-key", "list"], b"");
    assert!(String::from_utf8(listed).unwrap().contains("alice@nec.example"));
}

#[test]
fn the_example_of_a_relay_of_a_key_server_starts() {
    let key_host = Gate::init(PROGRAM, &["nec.example"]);
    key_host.generate_key("alice@nec.example", "p256");
    let keys = serve_keys(&key_host);
    let gate = Gate::init(PROGRAM, &["nec.example"]);
    set_master_key_aside(&gate);
    let mut example = Example::read("relay-of-key-server");
    let socket = format!("unix:{}", keys.socket.as_ref().unwrap().display());
    example.replace(&["secret_keys", "kmip", "servers"], vec![socket]);
    let gate = example.runs(gate);
    let listed = gate.must(&["secret-key", "list"], b"");
    assert!(String::from_utf8(listed).unwrap().contains("alice@nec.example"));
}

#[test]
fn the_example_of_a_key_server_starts() {
    let gate = Gate::init_with(PROGRAM, &["nec.example"], &["--database", "sqlite:keys.db"]);
    lay_tls_files(gate.dir(), "keys");
    fs::copy(gate.authority(), gate.dir().join("relays-ca.pem")).unwrap();
    let mut example = Example::read("key-server");
    let socket = gate.dir().join("keys.sock");
    example.replace(&["key_server", "socket"], text(&socket));
    example.replace(&["key_server", "listen"], "127.0.0.1:0");
    example.replace(&["key_server", "audit"], text(&gate.dir().join("audit.jsonl")));
    example.write(&gate);
    let server = KeyServer::start(PROGRAM, &gate.configuration());
    assert_eq!(server.socket.as_ref(), Some(&socket));
    assert!(server.address.is_some(), "it listens for KMIP over TLS");
    assert_checks(&gate);
    assert!(server.stop().success());
}

/// A file of `examples/` as data, and the mail server that it names.
struct Example {
    config: Table,
    mail_server: Sink,
}

impl Example {
    fn read(name: &str) -> Self {
        assert!(STARTED.contains(&name), "{name} is not in the list");
        let path = Path::new(FOLDER).join(name).with_extension("toml");
        let config = fs::read_to_string(path).unwrap().parse().unwrap();
        Self { config, mail_server: Sink::smtp() }
    }

    fn has(&self, path: [&str; 2]) -> bool {
        self.config.get(path[0]).and_then(|table| table.get(path[1])).is_some()
    }

    /// Replaces a value; nothing is added that the file does not have.
    fn replace(&mut self, path: &[&str], value: impl Into<Value>) {
        let (first, rest) = path.split_first().unwrap();
        let mut place = self.config.get_mut(*first);
        for name in rest {
            place = place.and_then(|table| table.get_mut(*name));
        }
        *place.unwrap_or_else(|| panic!("the example has no {path:?}")) = value.into();
    }

    fn write(&self, gate: &Gate) {
        fs::write(gate.configuration(), self.config.to_string()).unwrap();
    }

    /// Starts the relay with it, up to its ready line, and finds that `sealgate check` has nothing against it.
    fn runs(mut self, mut gate: Gate) -> Gate {
        let listeners =
            [["inside", "lmtp"], ["inside", "smtp"], ["outside", "smtp"], ["observe", "listen"]];
        let expected = listeners.map(|path| self.has(path));
        for path in listeners.into_iter().filter(|path| self.has(*path)).collect::<Vec<_>>() {
            self.replace(&path, "127.0.0.1:0");
        }
        if !self.has(["outside", "next_hop"])
            || self.config["outside"]["next_hop"].as_str() == Some("mx")
        {
            // There is no DNS here but what the test brings.
            let dns = self.config.entry("dns").or_insert_with(|| Table::new().into());
            let resolvers = vec![nameless::start().to_string()];
            dns.as_table_mut().unwrap().insert("resolvers".to_owned(), resolvers.into());
        }
        let mail_server = format!("smtp://{}", self.mail_server.address);
        self.replace(&["inside", "mail_server"], mail_server);
        self.write(&gate);
        let Ready { inside_lmtp, inside_smtp, outside_smtp, observe } = gate.start();
        let listening = [inside_lmtp, inside_smtp, outside_smtp, observe];
        assert_eq!(listening.map(|address| address.is_some()), expected, "what it listens on");
        assert_checks(&gate);
        assert!(gate.stop().success(), "{}", gate.log());
        gate
    }
}

/// `sealgate check` finds nothing.
fn assert_checks(gate: &Gate) {
    let checked = gate.run(&["check"], b"");
    let table = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.code, 0, "{table}{}", checked.stderr);
    assert!(table.contains("database") && !table.contains("FAILED"), "{table}");
}

/// `NAME.pem` and `NAME.key` in a directory.
fn lay_tls_files(directory: &Path, name: &str) -> [PathBuf; 2] {
    let pki = Pki::new("TLS");
    let (certificate, key) = pki.issue_for_tls(name, "/CN=gate.nec.example", "serverAuth", "");
    let files = ["pem", "key"].map(|end| directory.join(format!("{name}.{end}")));
    fs::copy(certificate, &files[0]).unwrap();
    fs::copy(key, &files[1]).unwrap();
    files
}

/// An empty revocation list of some authority, PEM.
fn revocation_list() -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let issuer = Issuer::new(params, KeyPair::generate().unwrap());
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2099, 1, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(&issuer).unwrap().pem().unwrap()
}

/// Whom the example of a directory binds as.
const ACCOUNT: &str = "dn: cn=sealgate,dc=nec,dc=example\nobjectClass: organizationalRole\n\
                       objectClass: simpleSecurityObject\ncn: sealgate\nuserPassword: secret\n\n";

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
