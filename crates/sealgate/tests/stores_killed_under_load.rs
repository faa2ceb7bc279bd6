//! Each store outside is killed under load and brought back: no mail lost, none sent plain, 451 4.7.5 while it is away, and
//! mail flows again within 5 s of its return.
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
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use sealgate_testkit::gate::{Gate, set};
use sealgate_testkit::key_server::KeyServer;
use sealgate_testkit::postgres::Postgres;
use sealgate_testkit::process;
use sealgate_testkit::pykmip_server::PyKmipServer;
use sealgate_testkit::slapd::{BASE, Person, Settings, Slapd};
use sealgate_testkit::softhsm::{self, Remoting, SoftHsm};

#[path = "support/outage.rs"]
mod outage;

use outage::{Bed, PROGRAM};

const NEC: &[&str] = &["nec.example"];

#[test]
fn slapd_may_be_killed_and_brought_back() {
    slapd_killed_and_brought_back(Slapd::tls_url);
}

#[test]
fn slapd_by_starttls_may_be_killed_and_brought_back() {
    slapd_killed_and_brought_back(Slapd::plain_url);
}

fn slapd_killed_and_brought_back(url: impl Fn(&Slapd) -> String) {
    let gate = Gate::init(PROGRAM, NEC);
    outage::make_keys(&gate);
    let mut directory = Slapd::start(Settings::default());
    let root = gate.dir().join("directory-root.pem");
    directory.add_people(&people(&root));
    gate.must(&["anchor", "import", root.to_str().unwrap()], b"");
    gate.configure(|config| {
        set(config, &["public_keys", "stores"], vec!["ldap"]);
        set(config, &["public_keys", "ldap", "servers"], vec![url(&directory)]);
        set(config, &["public_keys", "ldap", "ca"], text(&directory.pki.root));
        set(config, &["public_keys", "ldap", "base"], BASE);
    });
    let mut bed = Bed::beside_its_keys(gate);
    bed.relay.start();
    // The directory is asked about those who are written to; the secret keys are embedded.
    bed.survives(false, &mut directory, Slapd::kill, Slapd::start_again);
}

#[test]
fn pykmips_server_may_be_killed_and_brought_back() {
    let mut server = PyKmipServer::start();
    let (certificate, key) = server.client("gate1");
    let gate = Gate::init(PROGRAM, NEC);
    outage::make_keys(&gate);
    let mut bed = Bed::beside_its_keys(gate);
    bed.pin_abc();
    bed.relay.configure(|config| {
        let kmip = |name: &'static str| ["secret_keys", "kmip", name];
        set(config, &kmip("servers"), vec![format!("localhost:{}", server.port)]);
        set(config, &kmip("ca"), text(&server.pki.root));
        set(config, &kmip("certificate"), text(&certificate));
        set(config, &kmip("key"), text(&key));
        // It does one thing at a time, and is not fair to those who wait for it.
        set(config, &kmip("connections"), 1);
    });
    bed.move_keys("kmip");
    bed.relay.start();
    bed.survives(true, &mut server, PyKmipServer::kill, PyKmipServer::start_again);
}

#[test]
fn a_token_at_the_other_end_of_a_socket_may_be_killed_and_brought_back() {
    let token = SoftHsm::new();
    let gate = Gate::init(PROGRAM, NEC);
    outage::make_keys(&gate);
    let mut bed = Bed::beside_its_keys(gate);
    bed.pin_abc();
    bed.relay.configure(|config| {
        set(config, &["secret_keys", "pkcs11", "module"], text(&token.module()));
        set(config, &["secret_keys", "pkcs11", "token"], softhsm::TOKEN);
        set(config, &["secret_keys", "pkcs11", "pin_file"], text(&token.pin_file()));
    });
    bed.relay.set_environment(token.environment());
    bed.move_keys("pkcs11");
    let mut remoting = token.serve();
    bed.relay.set_environment(remoting.environment());
    bed.relay.set(&["secret_keys", "pkcs11", "module"], text(&remoting.module()));
    bed.relay.start();
    bed.survives(true, &mut remoting, Remoting::kill, Remoting::start);
}

#[test]
fn postgresql_may_be_killed_and_brought_back() {
    let mut server = Postgres::start();
    let url = server.url(&server.create_database());
    let first = process::open_temp_dir("first");
    let mut init = Command::new(PROGRAM);
    init.current_dir(first.path()).args(["init", "--domain", NEC[0], "--database", &url]);
    process::run(&mut init, b"").expect_ok("init");
    let gate = Gate::init(PROGRAM, NEC);
    fs::copy(first.path().join("master.key"), gate.dir().join("master.key")).unwrap();
    gate.set(&["database", "url"], url.as_str());
    outage::make_keys(&gate);
    let mut bed = Bed::beside_its_keys(gate);
    bed.pin_abc();
    bed.relay.start();
    bed.survives(true, &mut server, |server| server.crash(), |server| server.resume());
}

#[test]
fn our_own_key_server_may_be_killed_and_brought_back() {
    let host = Gate::init(PROGRAM, NEC);
    outage::make_keys(&host);
    let socket = host.dir().join("keys.sock");
    host.configure(|config| {
        let uid = fs::metadata(host.dir()).unwrap().uid();
        let mut relay = toml::Table::new();
        set(&mut relay, &["uid"], i64::from(uid));
        set(&mut relay, &["keys"], vec!["*@nec.example"]);
        set(&mut relay, &["operations"], vec!["sign", "decrypt"]);
        set(config, &["key_server", "socket"], text(&socket));
        set(config, &["key_server", "relay"], vec![toml::Value::Table(relay)]);
    });
    let mut bed = Bed::new(Gate::init(PROGRAM, NEC), &host);
    bed.relay.must(&["anchor", "import", host.authority().to_str().unwrap()], b"");
    bed.pin_abc();
    bed.relay.configure(|config| {
        set(config, &["secret_keys", "store"], "kmip");
        let servers = vec![format!("unix:{}", socket.display())];
        set(config, &["secret_keys", "kmip", "servers"], servers);
        set(config, &["secret_keys", "kmip", "get"], "never");
    });
    let start = || Some(KeyServer::start(PROGRAM, &host.configuration()));
    let mut server = start();
    bed.relay.start();
    let kill = |server: &mut Option<KeyServer>| server.take().unwrap().kill();
    bed.survives(true, &mut server, kill, |server| *server = start());
}

/// The recipients' entries for the directory, each with a certificate; their authority's goes into this file.
fn people(root: &Path) -> Vec<Person> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Others Root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    fs::write(root, params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let mut people = Vec::new();
    for addresses in outage::recipients().concat().chunks(ADDRESSES_PER_CERTIFICATE) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, addresses[0].as_str());
        let name = |address: &String| Ia5String::try_from(address.as_str()).unwrap();
        params.subject_alt_names =
            addresses.iter().map(|address| SanType::Rfc822Name(name(address))).collect();
        params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
        let certificate = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let person = |address: &String| Person {
            address: address.clone(),
            certificates: vec![certificate.der().to_vec()],
            signed_data: Vec::new(),
        };
        people.extend(addresses.iter().map(person));
    }
    people
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A look-up asks for one address, and one certificate may name many.
const ADDRESSES_PER_CERTIFICATE: usize = 40;
