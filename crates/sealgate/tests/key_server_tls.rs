//! `sealgate key-server` over TLS: whom it talks to, PyKMIP's own client, and sealgate's own store against it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "test code"
)]

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sealgate_core::keys::Certificate;
use sealgate_keys::kmip::attribute::Attribute;
use sealgate_keys::kmip::enumeration::usage;
use sealgate_keys::kmip::object::Object;
use sealgate_keys::kmip::request::{Parameters, Request};
use sealgate_testkit::gate::{self, Gate};
use sealgate_testkit::key_server::KeyServer;
use sealgate_testkit::mail;
use sealgate_testkit::pki::{KeyKind, Pki, Reads};
use sealgate_testkit::process::await_that;
use sealgate_testkit::pykmip_client::{self, ClientFiles};
use sealgate_testkit::pykmip_server::PyKmipServer;
use sealgate_testkit::session::send_smtp;
use sealgate_testkit::sink::Sink;
use toml::{Table, Value};

#[path = "support/elsewhere.rs"]
mod elsewhere;
#[path = "support/kmip_client.rs"]
mod kmip_client;

use elsewhere::{describe_kmip, move_keys};
use kmip_client::{BINARY, Kmip, configure, entry, own_uid, relay};

const ALICE: &str = "alice@nec.example";
const USES: &[&str] = &["sign", "decrypt"];

/// An authority for TLS, with keys on P-256; its files are where it is told.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
    name: String,
}

/// PEM files.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn new(directory: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let directory = directory.to_owned();
        std::fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), directory, name: name.to_owned() }
    }

    fn file(&self) -> PathBuf {
        self.directory.join(format!("{}.pem", self.name))
    }

    /// A certificate with this common name and these DNS names and addresses.
    fn issue(&self, common_name: &str, names: &[&str], use_: ExtendedKeyUsagePurpose) -> Files {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![use_];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |end: &str| self.directory.join(format!("{}-{common_name}.{end}", self.name));
        let files = Files { certificate: path("pem"), key: path("key") };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    fn client(&self, name: &str, names: &[&str]) -> Files {
        self.issue(name, names, ExtendedKeyUsagePurpose::ClientAuth)
    }
}

/// A gate with a key for Alice, and a key server for it over TLS and the socket.
struct Bed {
    gate: Gate,
    authority: Authority,
    server: KeyServer,
}

impl Bed {
    fn new(relays: Vec<Table>) -> Self {
        let gate = Gate::init(BINARY, &["nec.example"]);
        gate.generate_key(ALICE, "p256");
        let authority = Authority::new(gate.dir(), "authority");
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        let files = authority.issue("keys", &["localhost", "127.0.0.1"], usage);
        configure(&gate, relays, |table| {
            let text = |path: &Path| Value::from(path.to_str().unwrap());
            table.insert("listen".to_owned(), "127.0.0.1:0".into());
            table.insert("certificate".to_owned(), text(&files.certificate));
            table.insert("key".to_owned(), text(&files.key));
            table.insert("client_ca".to_owned(), text(&authority.file()));
        });
        let server = KeyServer::start(BINARY, &gate.configuration());
        Self { gate, authority, server }
    }

    fn address(&self) -> SocketAddr {
        self.server.address.unwrap()
    }

    /// What the server answers to a client with this certificate: whether it answers at all.
    fn answers(&self, client: Option<&Files>) -> bool {
        let mut kmip = connect(self.address(), &self.authority.file(), client);
        kmip.try_call(Request::DiscoverVersions).is_some()
    }
}

fn connect(address: SocketAddr, ca: &Path, client: Option<&Files>) -> Kmip {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let certificate = CertificateDer::from_pem_file(&files.certificate).unwrap();
            let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    let name = ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    Kmip::over(StreamOwned::new(tls, stream))
}

fn named(identity: &str) -> Table {
    entry("identity", identity.into(), &["*@nec.example"], USES)
}

#[test]
fn only_named_clients_with_our_authoritys_certificate_are_served() {
    let bed = Bed::new(vec![named("Gate1.nec.example")]);
    let by_name = bed.authority.client("gate1.nec.example", &[]);
    let by_dns_name = bed.authority.client("another", &["x.example", "gate1.NEC.example"]);
    let unnamed = bed.authority.client("gate2.nec.example", &["gate2.nec.example"]);
    let elsewhere = Authority::new(bed.gate.dir(), "elsewhere").client("gate1.nec.example", &[]);
    let server_only = ExtendedKeyUsagePurpose::ServerAuth;
    let server_only =
        bed.authority.issue("gate1.nec.example.", &["gate1.nec.example"], server_only);

    assert!(bed.answers(Some(&by_name)));
    assert!(bed.answers(Some(&by_dns_name)));
    assert!(!bed.answers(None), "without a certificate");
    assert!(!bed.answers(Some(&elsewhere)), "of another authority");
    assert!(!bed.answers(Some(&server_only)), "not for clients");
    assert!(!bed.answers(Some(&unnamed)), "named nowhere");
    let connects = || {
        let is = |line: &serde_json::Value| line["operation"] == "connect";
        bed.server.audit().into_iter().filter(is).collect::<Vec<_>>()
    };
    await_that("an audit line", || !connects().is_empty());
    let lines = connects();
    assert_eq!(lines.len(), 1, "only who came through TLS: {lines:?}");
    assert_eq!(lines[0]["client"], "gate2.nec.example");
    assert_eq!(lines[0]["outcome"], "refused");

    let mut kmip = connect(bed.address(), &bed.authority.file(), Some(&by_name));
    let id = kmip.key_for(ALICE, usage::SIGN);
    assert!(kmip.sign(&id, Parameters::default()).is_ok());
    let signed = bed.server.audit().pop().unwrap();
    assert_eq!(signed["client"], "gate1.nec.example");
    assert!(signed["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{signed}");
}

#[test]
fn a_reload_takes_new_certificates_and_names_for_all_connections() {
    let bed = Bed::new(vec![named("gate1")]);
    let gate1 = bed.authority.client("gate1", &[]);
    let gate2 = bed.authority.client("gate2", &[]);
    let mut kmip = connect(bed.address(), &bed.authority.file(), Some(&gate1));
    assert!(kmip.try_call(Request::DiscoverVersions).is_some());
    let other = Authority::new(bed.gate.dir(), "other");
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let files = other.issue("keys", &["localhost"], usage);
    bed.gate.configure(|config| {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        gate::set(config, &["key_server", "certificate"], path(&files.certificate));
        gate::set(config, &["key_server", "key"], path(&files.key));
        gate::set(config, &["key_server", "relay"], vec![named("gate2")]);
    });
    bed.server.reload();
    assert!(kmip.try_call(Request::DiscoverVersions).is_none(), "named no more");
    let mut kmip = connect(bed.address(), &other.file(), Some(&gate2));
    assert_eq!(kmip.keys_of(ALICE).len(), 2);
    bed.gate.set(&["key_server", "client_ca"], "missing.pem");
    bed.server.reload();
    assert_eq!(kmip.keys_of(ALICE).len(), 2, "a wrong configuration changes nothing");
}

#[test]
fn a_reload_that_replaces_the_clients_authority_ends_their_connections() {
    let bed = Bed::new(vec![named("gate1")]);
    let gate1 = bed.authority.client("gate1", &[]);
    let mut kmip = connect(bed.address(), &bed.authority.file(), Some(&gate1));
    bed.gate.configure(|config| {
        let relays = vec![named("gate1"), relay(own_uid(&bed.gate), &[ALICE], &["sign"])];
        gate::set(config, &["key_server", "relay"], relays);
    });
    bed.server.reload();
    assert_eq!(kmip.keys_of(ALICE).len(), 2, "what is the same ends nothing");
    let mut near = Kmip::unix(bed.server.socket.as_ref().unwrap());
    assert_eq!(near.keys_of(ALICE).len(), 2);
    let other = Authority::new(bed.gate.dir(), "other");
    let file = other.file().to_str().unwrap().to_owned();
    bed.gate.set(&["key_server", "client_ca"], file);
    bed.server.reload();
    assert!(kmip.try_call(Request::DiscoverVersions).is_none(), "of the old authority");
    assert!(!bed.answers(Some(&gate1)));
    assert!(bed.answers(Some(&other.client("gate1", &[]))));
    assert_eq!(near.keys_of(ALICE).len(), 2, "the socket has no authority");
}

#[test]
fn a_reload_says_what_takes_a_restart_and_why_nobody_is_served() {
    let bed = Bed::new(vec![named("gate1")]);
    let gate1 = bed.authority.client("gate1", &[]);
    bed.gate.configure(|config| {
        gate::set(config, &["master_key", "file"], "another.key");
        let relays = vec![relay(own_uid(&bed.gate), &[ALICE], &["sign"])];
        gate::set(config, &["key_server", "relay"], relays);
        let server = config["key_server"].as_table_mut().unwrap();
        for key in ["listen", "certificate", "key", "client_ca"] {
            server.remove(key).unwrap();
        }
    });
    bed.server.reload();
    let log = bed.server.log();
    let of =
        |key: &str| log.lines().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{log}"));
    assert!(of("[master_key]").contains("with a restart only"), "{log}");
    assert!(of("[key_server] listen").contains("taken and closed"), "{log}");
    assert!(!bed.answers(Some(&gate1)));
    await_that("it says why", || bed.server.log().contains("restart to close the port"));
    assert!(!bed.server.log().contains("too many connections"), "{}", bed.server.log());
    let mut near = Kmip::unix(bed.server.socket.as_ref().unwrap());
    assert_eq!(near.keys_of(ALICE).len(), 2, "with the master key that it started with");
}

/// Who has not shown a certificate takes no place of those who have.
#[test]
fn strangers_do_not_keep_relays_out() {
    let bed = Bed::new(vec![named("gate1")]);
    let gate1 = bed.authority.client("gate1", &[]);
    let mut before = connect(bed.address(), &bed.authority.file(), Some(&gate1));
    assert_eq!(before.keys_of(ALICE).len(), 2);
    // From four addresses of loopback, silent.
    let mut strangers = Vec::new();
    for last in 2..6 {
        for _ in 0..64 {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let socket = socket.unwrap();
            let from: SocketAddr = format!("127.0.0.{last}:0").parse().unwrap();
            socket.bind(&from.into()).unwrap();
            socket.connect(&bed.address().into()).unwrap();
            strangers.push(socket);
        }
    }
    assert!(bed.answers(Some(&gate1)), "a new connection of a relay");
    assert_eq!(before.keys_of(ALICE).len(), 2);
    assert_eq!(strangers.len(), 256);
}

#[test]
fn pykmips_own_client_brings_uses_and_destroys_a_key() {
    let operations = ["sign", "register", "destroy"];
    let bed = Bed::new(vec![entry("identity", "pykmip".into(), &["*@nec.example"], &operations)]);
    let client = bed.authority.client("pykmip", &[]);
    let pki = Pki::new("NEC");
    let carol = pki.issue("carol@nec.example", KeyKind::Rsa2048, Reads::Unsaid);
    let ca = bed.authority.file();
    let files = ClientFiles { ca: &ca, certificate: &client.certificate, key: &client.key };
    let ran = pykmip_client::run(bed.address(), files, &carol);
    let said = ran.expect_ok(&format!("PyKMIP; the server's log:\n{}", bed.server.log()));
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap();

    let certificate = Certificate::from_der(&carol.certificate_der()).unwrap();
    assert_eq!(said["certificate"], format!("certificate-{}", certificate.fingerprint()));
    assert_eq!(said["certificates"], serde_json::json!([said["certificate"]]));
    assert_eq!(said["keys"], serde_json::json!([said["key"]]));
    assert_eq!(said["same"], true);
    let attributes = &said["attributes"];
    let is = |name: &str, text: &str| {
        let value = attributes[name].as_str().unwrap_or_default();
        assert!(value.contains(text), "{name}: {attributes}");
    };
    is("Name", "sealgate/carol@nec.example/key");
    is("Cryptographic Algorithm", "RSA");
    is("Cryptographic Length", "2048");
    is("State", "ACTIVE");
    let signature = said["signature"].as_str().unwrap();
    let signature: Vec<u8> = (0..signature.len() / 2)
        .map(|at| u8::from_str_radix(&signature[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, certificate.public_key_bytes())
        .verify(b"a message", &signature)
        .unwrap();
    assert!(said["get"].as_str().unwrap().contains("PERMISSION_DENIED"), "{said}");
    assert_eq!(said["left"], serde_json::json!([]));
}

/// sealgate's own store: keys move from an embedded store to the key server, and mail is sealed and opened with them.
#[test]
fn mail_is_sealed_and_opened_with_keys_that_are_at_the_key_server() {
    let operations = ["sign", "decrypt", "register", "destroy"];
    let mut strict = entry("identity", "gate1".into(), &["*@nec.example"], &operations);
    strict.remove("require_address");
    let bed = Bed::new(vec![strict]);
    let client = bed.authority.client("gate1", &[]);
    let relay_gate = Gate::init(BINARY, &["nec.example"]);
    relay_gate.generate_key("carol@nec.example", "rsa2048");
    relay_gate.generate_key("dave@nec.example", "p256");
    let (port, ca) = (bed.address().port(), bed.authority.file());
    describe_kmip(&relay_gate, port, &ca, &client.certificate, &client.key);
    relay_gate.set(&["secret_keys", "kmip", "get"], "never");
    move_keys(&relay_gate, "kmip");
    let mail = b"From: carol@nec.example\r\nTo: dave@nec.example\r\nSubject: keys\r\n\
                 Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@nec.example>\r\n\r\n\
                 The word is petunia.\r\n";
    for (from, to) in [("carol", "dave"), ("dave", "carol")] {
        let text = String::from_utf8(mail.to_vec()).unwrap();
        let text = text.replace("carol@", "X@").replace("dave@", &format!("{to}@"));
        let text = text.replace("X@", &format!("{from}@"));
        let (from, to) = (format!("{from}@nec.example"), format!("{to}@nec.example"));
        let sealed = relay_gate.must(&["seal", "--from", &from, "--to", &to], text.as_bytes());
        assert!(!String::from_utf8_lossy(&sealed).contains("petunia"));
        let opened = relay_gate.must(&["open", "--to", &to, "--from", &from], &sealed);
        assert!(String::from_utf8_lossy(&opened).contains("petunia"));
    }
    let audit = bed.server.audit();
    for (operation, owner) in [
        ("sign", "carol@nec.example"),
        ("sign", "dave@nec.example"),
        ("decrypt", "carol@nec.example"),
        ("decrypt", "dave@nec.example"),
    ] {
        let is = |line: &&serde_json::Value| {
            line["operation"] == operation
                && line["owner"] == owner
                && line["used_for"] == owner
                && line["outcome"] == "done"
        };
        assert!(audit.iter().any(|line| is(&line)), "{operation} {owner}: {audit:?}");
    }
    let again = String::from_utf8(relay_gate.must(&["secret-key", "list"], b"")).unwrap();
    assert!(again.contains("carol@nec.example") && again.contains(ALICE), "{again}");
}

/// A `secret-key move` that was killed after the certificate and before the key, at a server that keeps both at once.
#[test]
fn a_move_to_pykmip_that_was_cut_off_is_gone_on_with_and_a_renewed_key_is_not_fetched() {
    let server = PyKmipServer::start();
    let (certificate, key) = server.client("gate1");
    let gate = Gate::init(BINARY, &["nec.example"]);
    gate.generate_key(ALICE, "rsa2048");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    gate.configure(|config| {
        let servers = vec![format!("localhost:{}", server.port)];
        gate::set(config, &["secret_keys", "kmip", "servers"], servers);
        gate::set(config, &["secret_keys", "kmip", "ca"], path(&server.pki.root));
        gate::set(config, &["secret_keys", "kmip", "certificate"], path(&certificate));
        gate::set(config, &["secret_keys", "kmip", "key"], path(&key));
    });
    let address = SocketAddr::from(([127, 0, 0, 1], server.port));
    let files = Files { certificate, key };
    let mut kmip = connect(address, &server.pki.root, Some(&files));
    let pem = gate.must(&["secret-key", "certificate", ALICE], b"");
    let der = CertificateDer::from_pem_slice(&pem).unwrap();
    let name = Attribute::Name(format!("sealgate/{ALICE}/certificate"));
    let object = Object::Certificate(der.to_vec());
    kmip.call(Request::Register { object, attributes: vec![name] }).unwrap();
    gate.must(&["secret-key", "move", "--to", "kmip"], b"");
    // A renewal: two keys of each kind, none with a link, for PyKMIP has none.
    gate.generate_key(ALICE, "rsa2048");
    gate.must(&["secret-key", "move", "--to", "kmip"], b"");
    gate.set(&["secret_keys", "store"], "kmip");
    let listed = gate.must(&["secret-key", "list", "--json"], b"");
    let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 4, "{listed}");
    let mail = b"From: alice@nec.example\r\nTo: alice@nec.example\r\nSubject: keys\r\n\
                 Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@nec.example>\r\n\r\n\
                 The word is petunia.\r\n";
    let sealed = gate.must(&["seal", "--from", ALICE, "--to", ALICE], mail);
    let opened = gate.must(&["open", "--from", ALICE, "--to", ALICE], &sealed);
    let opened = String::from_utf8_lossy(&opened);
    assert!(opened.contains("petunia") && opened.contains("smime=pass"), "{opened}");
}

/// Both certificates are entitled for a while, as the operator's guide says; a file that is unusable changes nothing.
#[test]
fn a_relay_changes_its_client_certificate_under_traffic_and_no_mail_is_refused() {
    let bed = Bed::new(vec![named("gate1"), named("gate2")]);
    // The senders below know no pause.
    let uses = ["key_server", "uses_per_minute"];
    bed.gate.configure(|config| gate::set(config, &uses, 1_000_000));
    bed.server.reload();
    let sink = Sink::smtp();
    let mut relay = Gate::init(BINARY, &["nec.example"]);
    let files =
        Files { certificate: relay.dir().join("client.pem"), key: relay.dir().join("client.key") };
    let put = |name: &str| {
        let made = bed.authority.client(name, &[]);
        std::fs::copy(&made.key, &files.key).unwrap();
        std::fs::copy(&made.certificate, &files.certificate).unwrap();
    };
    put("gate1");
    signs_all_at(&relay, &bed, &files, &sink);
    relay.start();
    let inside = relay.ready().inside_smtp.unwrap();
    let entity = b"Content-Type: text/plain; charset=us-ascii\r\n\r\nThe word is petunia.\r\n";
    let message = mail::message(ALICE, "bob@abc.example", "rotation", entity);
    let replies = Mutex::new(Vec::new());
    let is_over = AtomicBool::new(false);
    let sent = || replies.lock().unwrap().len();
    let some_more = |what: &str| {
        let before = sent();
        await_that(what, || sent() >= before + 3);
    };
    let signs = |name: &str| {
        let is = |line: &serde_json::Value| line["client"] == name && line["operation"] == "sign";
        bed.server.audit().iter().filter(|line| is(line)).count()
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    let reply = send_smtp(inside, ALICE, &["bob@abc.example"], &message);
                    replies.lock().unwrap().push(reply);
                }
            });
        }
        // Whatever fails below must end the senders.
        let _end = Over(&is_over);
        some_more("mail with the first certificate");
        std::fs::write(&files.certificate, "not a certificate").unwrap();
        relay.signal("HUP");
        await_that("the complaint", || relay.log().contains("the configuration stays as it was"));
        some_more("mail with the first certificate still");
        assert!(signs("gate1") > 0, "{}", relay.log());
        assert_eq!(signs("gate2"), 0);
        put("gate2");
        relay.signal("HUP");
        await_that("the reload", || relay.log().contains("configuration reloaded"));
        some_more("what was under way may end with the first certificate");
        let first = signs("gate1");
        bed.gate.configure(|config| {
            gate::set(config, &["key_server", "relay"], vec![named("gate2")]);
        });
        bed.server.reload();
        some_more("mail with the second certificate");
        assert_eq!(signs("gate1"), first, "the first certificate is used no more");
        assert!(signs("gate2") > 0);
    });
    let replies = replies.into_inner().unwrap();
    let refused: Vec<_> = replies.iter().filter(|reply| reply.code != 250).collect();
    assert!(refused.is_empty(), "{refused:?} of {}\n{}", replies.len(), relay.log());
    println!("{} messages", replies.len());
}

/// A relay that signs whatever goes out, with keys of the key server.
fn signs_all_at(relay: &Gate, bed: &Bed, client: &Files, sink: &Sink) {
    relay.configure(|config| {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let server = vec![format!("localhost:{}", bed.address().port())];
        gate::set(config, &["secret_keys", "store"], "kmip");
        gate::set(config, &["secret_keys", "kmip", "servers"], server);
        gate::set(config, &["secret_keys", "kmip", "ca"], path(&bed.authority.file()));
        gate::set(config, &["secret_keys", "kmip", "certificate"], path(&client.certificate));
        gate::set(config, &["secret_keys", "kmip", "key"], path(&client.key));
        gate::set(config, &["secret_keys", "kmip", "get"], "never");
        gate::set(config, &["policy", "sign"], "always");
        gate::set(config, &["policy", "encrypt"], "never");
        gate::set(config, &["outside", "next_hop"], format!("smtp://{}", sink.address));
        gate::set(config, &["inside", "mail_server"], format!("smtp://{}", sink.address));
    });
}

/// Ends the senders.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn both_entrances_serve_side_by_side() {
    let bed = Bed::new(vec![named("gate1")]);
    bed.gate.configure(|config| {
        let relays = vec![named("gate1"), relay(own_uid(&bed.gate), &[ALICE], &["sign"])];
        gate::set(config, &["key_server", "relay"], relays);
    });
    bed.server.reload();
    let mut near = Kmip::unix(bed.server.socket.as_ref().unwrap());
    let gate1 = bed.authority.client("gate1", &[]);
    let mut far = connect(bed.address(), &bed.authority.file(), Some(&gate1));
    let id = near.key_for(ALICE, usage::SIGN);
    assert_eq!(far.key_for(ALICE, usage::SIGN), id);
    assert!(near.sign(&id, Parameters::default()).is_ok());
    assert!(far.sign(&id, Parameters::default()).is_ok());
    assert!(bed.server.stop().success());
}
