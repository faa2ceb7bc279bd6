//! Certificates from a real OpenLDAP server, which goes away, hangs and comes back.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair, SanType};
use sealgate_core::address::Address;
use sealgate_core::keys::{Certificate, PublicKey};
use sealgate_keys::StoreError;
use sealgate_keys::public_key_store::directory_server::{
    CERTIFICATES_MAX, DirectoryServer, LdapBind, LdapConfig, Published,
};
use sealgate_keys::secret_source::SecretSource;
use sealgate_testkit::pki::{Identity, KeyKind, Pki, Reads};
use sealgate_testkit::process;
use sealgate_testkit::slapd::{ADMIN, ADMIN_PASSWORD, BASE, PEOPLE, Person, Settings, Slapd};

const ALICE: &str = "alice@nec.example";
const TIMEOUT: Duration = Duration::from_secs(4);
/// No certificates.
const NONE: [Vec<u8>; 0] = [];

/// Nothing is proven: a server on this host.
fn plain(server: SocketAddr) -> LdapConfig {
    LdapConfig {
        servers: vec![format!("ldap://{server}")],
        starttls: false,
        ca: None,
        bind: LdapBind::Anonymous,
        base: BASE.to_owned(),
        filter: "(mail={address})".to_owned(),
        entries_max: 5,
        timeout: TIMEOUT,
    }
}

fn config(slapd: &Slapd, server: String) -> LdapConfig {
    let ca = Some(slapd.pki.root.clone());
    LdapConfig { servers: vec![server], starttls: true, ca, ..plain(slapd.plain) }
}

fn connect(slapd: &Slapd) -> DirectoryServer {
    DirectoryServer::new(config(slapd, slapd.tls_url())).unwrap()
}

fn issue(pki: &Pki, address: &str) -> Identity {
    pki.issue(address, KeyKind::P256, Reads::Unsaid)
}

fn person(address: &str, certificates: &[Vec<u8>]) -> Person {
    Person {
        address: address.to_owned(),
        certificates: certificates.to_vec(),
        signed_data: Vec::new(),
    }
}

/// A directory with Alice in it, and her certificate.
fn with_alice(settings: Settings) -> (Slapd, Vec<u8>) {
    let mut slapd = Slapd::start(settings);
    let certificate = issue(&slapd.pki, ALICE).certificate_der();
    slapd.add_person(&person(ALICE, std::slice::from_ref(&certificate)));
    (slapd, certificate)
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn ders(keys: &[PublicKey]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.certificate.der().to_vec()).collect()
}

async fn find(directory: &DirectoryServer, text: &str) -> Result<Vec<Vec<u8>>, StoreError> {
    Ok(ders(&look_up(directory, text).await?))
}

/// What a whole answer has, or one in part that has something.
async fn look_up(directory: &DirectoryServer, text: &str) -> Result<Vec<PublicKey>, StoreError> {
    let found = directory.find(&address(text)).await?;
    match found.not_whole {
        Some(error) if found.keys.is_empty() => Err(error),
        _ => Ok(found.keys),
    }
}

/// Alice, for so many who ask at once.
async fn find_at_once(
    directory: &Arc<DirectoryServer>,
    count: usize,
) -> Vec<Result<Vec<Vec<u8>>, StoreError>> {
    let look_up = |_| {
        let directory = Arc::clone(directory);
        tokio::spawn(async move { find(&directory, ALICE).await })
    };
    let look_ups: Vec<_> = (0..count).map(look_up).collect();
    let mut found = Vec::with_capacity(count);
    for look_up in look_ups {
        found.push(look_up.await.unwrap());
    }
    found
}

/// The reason of an error that must be "away".
fn why<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> String {
    match outcome {
        Err(StoreError::Unavailable { why, .. }) => why,
        other => panic!("not away: {other:?}"),
    }
}

fn private_file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    process::set_mode(&path, 0o600);
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_found_by_ldaps_and_by_starttls() {
    let (slapd, certificate) = with_alice(Settings::default());
    for url in [slapd.tls_url(), slapd.plain_url()] {
        let directory = DirectoryServer::new(config(&slapd, url.clone())).unwrap();
        let keys = look_up(&directory, "ALICE@nec.example").await.unwrap();
        assert_eq!(ders(&keys), std::slice::from_ref(&certificate), "{url}");
        assert!(!keys[0].pinned, "what a directory says is not believed by itself");
        assert_eq!(find(&directory, "bob@nec.example").await.unwrap(), NONE);
        let line = directory.check().await.unwrap();
        assert_eq!(line, format!("{url}: bound as anonymous, {BASE} is there"));
    }
    let directory = DirectoryServer::new(plain(slapd.plain)).unwrap();
    assert_eq!(find(&directory, ALICE).await.unwrap(), [certificate], "loopback may be plain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_the_right_certificate_is_no_directory() {
    let (slapd, _) = with_alice(Settings::default());
    let stranger = Pki::new("Stranger");
    for (url, other_ca, says) in [
        (slapd.tls_url(), Some(stranger.root.clone()), "UnknownIssuer"),
        (slapd.plain_url(), Some(stranger.root.clone()), "UnknownIssuer"),
        (slapd.tls_url(), None, "UnknownIssuer"),
        (
            format!("ldaps://127.0.0.1:{}", slapd.tls.port()),
            Some(slapd.pki.root.clone()),
            "not valid for name",
        ),
        (
            format!("ldap://127.0.0.1:{}", slapd.plain.port()),
            Some(slapd.pki.root.clone()),
            "not valid for name",
        ),
    ] {
        let config = LdapConfig { ca: other_ca, ..config(&slapd, url.clone()) };
        let directory = match DirectoryServer::new(config) {
            Ok(directory) => directory,
            // A machine without any authorities says so at once.
            Err(error) => {
                assert!(error.to_string().contains("no authorities"), "{error}");
                continue;
            }
        };
        let why = why(find(&directory, ALICE).await);
        assert!(why.contains("certificate") && why.contains(says), "{url}: {why}");
        assert!(directory.check().await.is_err(), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_read_is_who_binds_with_password_or_certificate() {
    let (slapd, certificate) = with_alice(Settings { is_public: false, ..Settings::default() });
    let dir = tempfile::tempdir().unwrap();
    let bound = |url: String, bind: LdapBind| {
        DirectoryServer::new(LdapConfig { bind, ..config(&slapd, url) }).unwrap()
    };
    let with_password = |name: &str, path: &Path| LdapBind::Simple {
        name: name.to_owned(),
        password: SecretSource::File(path.to_owned()),
    };

    let nobody = bound(slapd.tls_url(), LdapBind::Anonymous);
    let text = why(find(&nobody, ALICE).await);
    assert!(text.contains("noSuchObject"), "never `no key`: {text}");
    assert!(nobody.check().await.is_err());

    let right = private_file(dir.path(), "right", &format!("{ADMIN_PASSWORD}\n"));
    let (chain, key) = slapd.client_certificate();
    for url in [slapd.tls_url(), slapd.plain_url()] {
        for bind in [
            with_password(ADMIN, &right),
            LdapBind::Certificate { certificate: chain.clone(), key: key.clone() },
        ] {
            let directory = bound(url.clone(), bind.clone());
            assert_eq!(
                find(&directory, ALICE).await.unwrap(),
                std::slice::from_ref(&certificate),
                "{bind:?}"
            );
        }
    }
    let line = bound(slapd.tls_url(), with_password(ADMIN, &right)).check().await.unwrap();
    assert!(line.contains(&format!("bound as {ADMIN}")), "{line}");

    let wrong = private_file(dir.path(), "wrong", "wrong-canary\n");
    for (path, says) in [(wrong, "invalidCredentials"), (dir.path().join("none"), "No such file")] {
        let directory = bound(slapd.tls_url(), with_password(ADMIN, &path));
        let why = why(find(&directory, ALICE).await);
        assert!(why.contains(says), "{why}");
        assert!(!format!("{why}{directory:?}").contains("canary"), "{why}");
    }
    // Without StartTLS our certificate cannot be shown.
    let plain = LdapConfig {
        starttls: false,
        bind: LdapBind::Certificate { certificate: chain, key },
        ..config(&slapd, slapd.plain_url())
    };
    assert!(DirectoryServer::new(plain).unwrap_err().to_string().contains("needs ldaps://"));
}

/// As a directory does whose administrator has changed the password, or that has locked the account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_password_is_not_tried_until_the_account_is_locked() {
    let settings = Settings { wrong_passwords_max: Some(5), ..Settings::default() };
    let (mut slapd, certificate) = with_alice(settings);
    let relay = slapd.add_person(&person("relay@nec.example", &[]));
    slapd.set_password(&relay, "right-canary");
    let dir = tempfile::tempdir().unwrap();
    let file = private_file(dir.path(), "password", "wrong-canary\n");
    let bind = LdapBind::Simple { name: relay.clone(), password: SecretSource::File(file.clone()) };
    // Two names of one directory.
    let servers = vec![slapd.tls_url(), slapd.plain_url()];
    let config = LdapConfig { servers, bind, ..config(&slapd, String::new()) };
    let directory = DirectoryServer::new(config.clone()).unwrap();

    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        let why = why(find(&directory, ALICE).await);
        assert!(why.contains(&format!("password of {relay} was refused by")), "{why}");
        assert!(why.contains("invalidCredentials") && why.contains("not tried again before"));
        assert!(!why.contains("canary"), "{why}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let checked = why(directory.check().await);
    assert!(checked.contains(&slapd.tls_url()) && checked.contains(&slapd.plain_url()));
    // Another process: one try more at each.
    let again = why(DirectoryServer::new(config).unwrap().check().await);
    assert!(again.contains("not tried again before"), "{again}");

    // The right one is tried at once, and the account is not locked: 5 wrong ones would have done that.
    private_file(dir.path(), "password", "right-canary\n");
    assert_eq!(found_within(&directory, Duration::from_secs(5)).await, certificate);
}

/// One that has an old password, say, must not take out the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_took_the_password_is_given_it_although_another_refuses_it() {
    let (mut first, _) = with_alice(Settings::default());
    let (mut second, certificate) = with_alice(Settings::default());
    let names =
        [&mut first, &mut second].map(|slapd| slapd.add_person(&person("r@nec.example", &[])));
    assert_eq!(names[0], names[1]);
    first.set_password(&names[0], "old-canary");
    second.set_password(&names[1], "new-canary");
    let dir = tempfile::tempdir().unwrap();
    let file = private_file(dir.path(), "password", "new-canary\n");
    let [name, _] = names;
    let bind = LdapBind::Simple { name, password: SecretSource::File(file) };
    let servers = [&first, &second].map(|slapd| format!("ldap://{}", slapd.plain)).to_vec();
    let directory =
        DirectoryServer::new(LdapConfig { servers, bind, ..plain(first.plain) }).unwrap();
    first.kill();
    assert_eq!(find(&directory, ALICE).await.unwrap(), std::slice::from_ref(&certificate));
    first.start_again();
    // The first is preferred, as soon as it can be reached.
    let end = Instant::now() + Duration::from_secs(5);
    while !directory.check().await.is_err_and(|error| error.to_string().contains("was refused")) {
        assert!(Instant::now() < end, "it is not asked");
    }
    second.kill();
    second.start_again();
    assert_eq!(found_within(&directory, Duration::from_secs(5)).await, certificate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_finds_nothing_but_itself() {
    let (mut slapd, certificate) = with_alice(Settings::default());
    let star = issue(&slapd.pki, "*@nec.example").certificate_der();
    let directory = connect(&slapd);
    for text in [r"*@nec.example", r#""*)(mail=*"@nec.example"#, r"ali*@nec.example"] {
        assert_eq!(find(&directory, text).await.unwrap(), NONE, "{text}");
    }
    slapd.add_person(&person("*@nec.example", std::slice::from_ref(&star)));
    assert_eq!(find(&directory, "*@nec.example").await.unwrap(), [star]);
    assert_eq!(find(&directory, ALICE).await.unwrap(), [certificate]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_entrys_values_those_count_that_parse_and_name_the_address() {
    let mut slapd = Slapd::start(Settings::default());
    let [first, second] = [(); 2].map(|()| issue(&slapd.pki, ALICE).certificate_der());
    let bob = issue(&slapd.pki, "bob@nec.example").certificate_der();
    // BER without meaning, which is all that the server looks at; and a signed list of certificates.
    let garbage = vec![0x30, 0x03, 0x02, 0x01, 0x05];
    let signer = issue(&slapd.pki, ALICE);
    let signed_data = sign_nothing(&signer, &slapd.pki.root);
    slapd.add_person(&Person {
        address: ALICE.to_owned(),
        certificates: vec![first.clone(), bob, second.clone()],
        signed_data: vec![garbage.clone(), signed_data],
    });
    slapd.add_person(&Person { signed_data: vec![garbage], ..person("carol@nec.example", &[]) });

    let directory = connect(&slapd);
    let keys = look_up(&directory, ALICE).await.unwrap();
    let mut found = ders(&keys);
    let mut expected = vec![first, second, signer.certificate_der()];
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    for key in &keys {
        assert_eq!(key.intermediates.len(), 1, "the authority from the signed list");
        let is_signer = key.certificate.der() == signer.certificate_der();
        let reads_aes = key.capabilities.is_some_and(|capabilities| capabilities.aes_256_cbc);
        assert_eq!(reads_aes, is_signer, "who signed what he reads: {key:?}");
    }
    let why = why(find(&directory, "carol@nec.example").await);
    assert!(why.contains("is left out"), "what nobody can read is not `no key`: {why}");
}

/// Each signature is verified with the one certificate that it names: to try every one would let one entry's values cost
/// tens of thousands of verifications.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_is_verified_with_the_certificate_that_it_names() {
    let mut slapd = Slapd::start(Settings::default());
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let key_file = private_file(dir.path(), "key.pem", &key.serialize_pem());
    let [signer, twin] = [2020, 2021].map(|year| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::Rfc822Name(ALICE.try_into().unwrap())];
        params.not_before = rcgen::date_time_ymd(year, 1, 1);
        params.serial_number = Some(u64::from(year.unsigned_abs()).into());
        let pem = params.self_signed(&key).unwrap().pem();
        private_file(dir.path(), &format!("{year}.pem"), &pem)
    });
    let with = |beside: &Path| {
        let mut command = Command::new("openssl");
        command.args(["cms", "-sign", "-binary", "-nodetach", "-nocerts", "-outform", "DER"]);
        command.arg("-signer").arg(&signer).arg("-inkey").arg(&key_file);
        process::run(command.arg("-certfile").arg(beside), b"").expect_ok("openssl cms")
    };
    let directory = connect(&slapd);
    for (beside, reads) in [(&twin, false), (&signer, true)] {
        let signed_data = vec![with(beside)];
        slapd.add_person(&Person { signed_data, ..person(ALICE, &[]) });
        let keys = look_up(&directory, ALICE).await.unwrap();
        assert_eq!(keys.iter().any(|key| key.capabilities.is_some()), reads, "{keys:?}");
    }
}

/// `userSMIMECertificate` as clients publish it: CMS SignedData over nothing, with certificate and authority.
fn sign_nothing(signer: &Identity, authority: &Path) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(["cms", "-sign", "-binary", "-nodetach", "-outform", "DER", "-signer"]);
    command.arg(&signer.certificate).arg("-inkey").arg(&signer.key);
    command.arg("-certfile").arg(authority);
    process::run(&mut command, b"").expect_ok("openssl cms")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_whole_is_an_error() {
    let (mut slapd, certificate) = with_alice(Settings { entries_max: 8, ..Settings::default() });
    let crowd: Vec<Person> = (0..9).map(|_| person("crowd@nec.example", &[])).collect();
    slapd.add_people(&crowd);
    let with = |change: fn(&mut LdapConfig)| {
        let mut config = config(&slapd, slapd.tls_url());
        change(&mut config);
        DirectoryServer::new(config).unwrap()
    };

    // Ours is smaller than the server's, or the other way round.
    for directory in [with(|_| ()), with(|config| config.entries_max = 100)] {
        let why = why(find(&directory, "crowd@nec.example").await);
        assert!(why.contains("entries match"), "{why}");
        assert_eq!(find(&directory, ALICE).await.unwrap(), std::slice::from_ref(&certificate));
    }
    let elsewhere = with(|config| config.base = "ou=nowhere,dc=nec,dc=example".to_owned());
    let text = why(find(&elsewhere, ALICE).await);
    assert!(text.contains("noSuchObject") && text.contains("`base`"), "{text}");
    assert!(why(elsewhere.check().await).contains("`base`"));
    let foreign = with(|config| config.base = "dc=other,dc=example".to_owned());
    assert!(foreign.find(&address(ALICE)).await.is_err());

    slapd.change(
        "ldapadd",
        &format!(
            "dn: ou=elsewhere,{PEOPLE}\nobjectClass: referral\nobjectClass: extensibleObject\n\
             ou: elsewhere\nref: ldap://other.example/ou=elsewhere,{PEOPLE}\n"
        ),
    );
    let directory = connect(&slapd);
    assert_eq!(find(&directory, ALICE).await.unwrap(), [certificate]);
    let why = why(find(&directory, "dave@nec.example").await);
    assert!(why.contains("refers to other servers"), "{why}");
    // Before mail waits for that, as below the root of an Active Directory.
    let checked = self::why(directory.check().await);
    assert!(checked.contains("refers to other servers"), "{checked}");
    assert!(checked.contains(&slapd.tls_url()) && checked.contains(":3269"), "{checked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_an_error_until_it_is_back() {
    let (mut slapd, certificate) = with_alice(Settings::default());
    let directory = Arc::new(connect(&slapd));
    assert_eq!(find(&directory, ALICE).await.unwrap(), std::slice::from_ref(&certificate));

    // Gone and back between two look-ups: nobody notices.
    slapd.kill();
    slapd.start_again();
    assert_eq!(find(&directory, ALICE).await.unwrap(), std::slice::from_ref(&certificate));

    slapd.kill();
    for found in find_at_once(&directory, 50).await {
        assert!(why(found).contains("refused"));
    }
    slapd.start_again();
    assert_eq!(found_within(&directory, Duration::from_secs(5)).await, certificate);
}

/// Asks until Alice is found.
async fn found_within(directory: &DirectoryServer, patience: Duration) -> Vec<u8> {
    let end = Instant::now() + patience;
    loop {
        match find(directory, ALICE).await {
            Ok(found) => return found.into_iter().next().expect("never an empty answer"),
            Err(error) => assert!(Instant::now() < end, "after {patience:?} still: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_an_error_in_time_and_works_again_afterwards() {
    let (slapd, certificate) = with_alice(Settings::default());
    // Long, so that what a busy machine adds is little beside it.
    let timeout = Duration::from_secs(4);
    let config = LdapConfig { timeout, ..config(&slapd, slapd.tls_url()) };
    let directory = Arc::new(DirectoryServer::new(config).unwrap());
    assert_eq!(find(&directory, ALICE).await.unwrap(), std::slice::from_ref(&certificate));

    slapd.pause();
    let start = Instant::now();
    for found in find_at_once(&directory, 20).await {
        assert!(why(found).contains("in time"));
    }
    assert!(start.elapsed() < timeout * 2, "one after another: {:?}", start.elapsed());
    // A caller who gives up first leaves no connection behind that hangs for others.
    let given_up = tokio::time::timeout(timeout / 10, directory.find(&address(ALICE))).await;
    assert!(given_up.is_err() || given_up.is_ok_and(|outcome| outcome.is_err()));

    slapd.resume();
    assert_eq!(found_within(&directory, Duration::from_secs(5)).await, certificate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_hangs_is_replaced_within_the_look_up() {
    let (slapd, certificate) = with_alice(Settings::default());
    let freeze = Arc::new(tokio::sync::Notify::new());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address_of_proxy = listener.local_addr().unwrap();
    let (server, frozen) = (slapd.plain, Arc::clone(&freeze));
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = tokio::net::TcpStream::connect(server).await.unwrap();
            let frozen = Arc::clone(&frozen);
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    // As where a firewall has forgotten the connection: open on our side, and nothing comes.
                    () = frozen.notified() => std::future::pending().await,
                }
            });
        }
    });
    let directory = Arc::new(DirectoryServer::new(plain(address_of_proxy)).unwrap());
    assert_eq!(find(&directory, ALICE).await.unwrap(), std::slice::from_ref(&certificate));

    freeze.notify_waiters();
    for found in find_at_once(&directory, 20).await {
        assert_eq!(found.unwrap(), std::slice::from_ref(&certificate));
    }
    let start = Instant::now();
    assert_eq!(find(&directory, ALICE).await.unwrap(), std::slice::from_ref(&certificate));
    assert!(start.elapsed() < TIMEOUT / 2, "the new connection stays: {:?}", start.elapsed());

    // Even where every caller gives up long before the connection is found to hang.
    freeze.notify_waiters();
    let (alice, end) = (address(ALICE), Instant::now() + TIMEOUT);
    while tokio::time::timeout(TIMEOUT / 20, directory.find(&alice)).await.is_err() {
        assert!(Instant::now() < end, "the connection that hangs is still in use");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_server_that_answers_is_used_and_the_first_of_all_preferred() {
    let (mut first, certificate) = with_alice(Settings::default());
    let mut second = Slapd::start(Settings::default());
    let other = issue(&second.pki, ALICE).certificate_der();
    second.add_person(&person(ALICE, std::slice::from_ref(&other)));
    let dir = tempfile::tempdir().unwrap();
    let roots = [&first, &second].map(|slapd| std::fs::read_to_string(&slapd.pki.root).unwrap());
    let ca = private_file(dir.path(), "ca.pem", &roots.concat());
    let config = LdapConfig {
        servers: vec![first.tls_url(), second.plain_url()],
        ca: Some(ca),
        ..config(&first, String::new())
    };
    let directory = DirectoryServer::new(config).unwrap();

    first.kill();
    assert_eq!(find(&directory, ALICE).await.unwrap(), std::slice::from_ref(&other));
    let line = directory.check().await.unwrap_err().to_string();
    assert!(line.contains(&format!("{}: ", first.tls_url())), "the server that fails: {line}");
    assert!(line.contains("refused") && line.contains("bound as anonymous"), "{line}");

    first.start_again();
    let end = Instant::now() + Duration::from_secs(5);
    while find(&directory, ALICE).await.unwrap() != std::slice::from_ref(&certificate) {
        assert!(Instant::now() < end, "the first server is back and not used");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    first.pause();
    let start = Instant::now();
    assert_eq!(find(&directory, ALICE).await.unwrap(), [other], "the first one hangs");
    assert!(start.elapsed() < TIMEOUT, "{:?}", start.elapsed());
    first.resume();

    first.kill();
    second.kill();
    let why = why(find(&directory, ALICE).await);
    assert!(why.contains(&first.tls_url()) && why.contains(&second.plain_url()), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_adds_what_is_missing_and_nothing_else() {
    let (mut slapd, old) = with_alice(Settings::default());
    let dir = tempfile::tempdir().unwrap();
    let password = private_file(dir.path(), "password", ADMIN_PASSWORD);
    let bind = LdapBind::Simple { name: ADMIN.to_owned(), password: SecretSource::File(password) };
    let directory =
        DirectoryServer::new(LdapConfig { bind, ..config(&slapd, slapd.tls_url()) }).unwrap();
    let alice = address(ALICE);
    let new: Vec<Arc<Certificate>> = [(); 2]
        .map(|()| issue(&slapd.pki, ALICE).certificate_der())
        .iter()
        .map(|der| Arc::new(Certificate::from_der(der).unwrap()))
        .collect();
    let count = async || find(&directory, ALICE).await.unwrap().len();

    assert_eq!(directory.publish(&alice, &new[..1]).await, Ok(Published::Added(1)));
    assert_eq!(directory.publish(&alice, &new).await, Ok(Published::Added(1)));
    assert_eq!(directory.publish(&alice, &new).await, Ok(Published::AlreadyThere));
    assert_eq!(directory.publish(&alice, &[]).await, Ok(Published::AlreadyThere));
    let found = find(&directory, ALICE).await.unwrap();
    assert!(found.contains(&old) && found.len() == 3, "the old one stays");
    assert_eq!(directory.withdraw(&alice, &new).await, Ok(2));
    assert_eq!(directory.withdraw(&alice, &new).await, Ok(0));
    assert_eq!(count().await, 1);

    let bob = address("bob@nec.example");
    assert!(matches!(directory.publish(&bob, &new).await, Err(StoreError::NotFound(_))));
    slapd.add_person(&person(ALICE, &[]));
    assert!(matches!(directory.publish(&alice, &new).await, Err(StoreError::NotFound(_))));

    let (certificate, key) = slapd.client_certificate();
    let reader = LdapBind::Certificate { certificate, key };
    let config = LdapConfig { bind: reader, ..config(&slapd, slapd.tls_url()) };
    let dora = "dora@nec.example";
    slapd.add_person(&person(dora, &[]));
    let outcome = DirectoryServer::new(config).unwrap().publish(&address(dora), &new).await;
    let why = why(outcome);
    assert!(why.contains("insufficientAccessRights"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_ten_thousand_is_found_among_concurrent_look_ups() {
    const PEOPLE_COUNT: usize = 10_000;
    let (mut slapd, certificate) = with_alice(Settings::default());
    let people: Vec<Person> = (0..PEOPLE_COUNT)
        .map(|number| person(&format!("p{number}@nec.example"), std::slice::from_ref(&certificate)))
        .collect();
    slapd.add_people(&people);
    let directory = Arc::new(connect(&slapd));
    let mut times = Vec::new();
    for round in 0..200 {
        let start = Instant::now();
        assert_eq!(find(&directory, ALICE).await.unwrap(), std::slice::from_ref(&certificate));
        times.push(start.elapsed());
        // Found as well, but the certificate there is Alice's.
        let other = format!("p{}@nec.example", round * 47 % PEOPLE_COUNT);
        assert_eq!(find(&directory, &other).await.unwrap(), NONE);
    }
    times.sort();
    println!("one of {PEOPLE_COUNT}: p50 {:?}, p99 {:?}", times[100], times[198]);

    let start = Instant::now();
    for found in find_at_once(&directory, 1000).await {
        assert_eq!(found.unwrap(), std::slice::from_ref(&certificate));
    }
    println!("1000 at once on one connection: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_very_many_certificates_a_bounded_number_is_used() {
    let mut slapd = Slapd::start(Settings::default());
    let authority = Pki::new("Many");
    let many: Vec<Vec<u8>> =
        (0..CERTIFICATES_MAX + 2).map(|_| issue(&authority, ALICE).certificate_der()).collect();
    slapd.add_person(&person(ALICE, &many));
    let found = find(&connect(&slapd), ALICE).await.unwrap();
    assert_eq!(found.len(), CERTIFICATES_MAX);
    assert!(found.iter().all(|der| many.contains(der)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_ldap_is_an_error_and_no_empty_answer() {
    // A SearchResultEntry (RFC 4511 §4.5.2) of an entry `x` without attributes, in message 1.
    let entry = [0x30, 0x0a, 0x02, 0x01, 0x01, 0x64, 0x05, 0x04, 0x01, b'x', 0x30, 0x00];
    let answers: [(&str, Vec<u8>); 7] = [
        ("nothing", vec![]),
        ("another protocol", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("no BER", vec![0xff; 100]),
        ("an entry without content", vec![0x30, 0x05, 0x02, 0x01, 0x01, 0x64, 0x00]),
        ("a result without content", vec![0x30, 0x05, 0x02, 0x01, 0x01, 0x65, 0x00]),
        ("a message of two gigabytes", vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x02, 0x01, 0x01]),
        ("entries without end", entry.repeat(1000)),
    ];
    for (what, answer) in answers {
        let config = LdapConfig { timeout: Duration::from_secs(1), ..plain(serve(answer)) };
        let directory = DirectoryServer::new(config).unwrap();
        for _ in 0..2 {
            let why = why(find(&directory, ALICE).await);
            println!("{what}: {why}");
            assert!(why.lines().count() == 1, "{what}: {why}");
        }
        assert!(directory.check().await.is_err(), "{what}");
    }
}

/// A server that answers whatever it is asked with these octets and hangs up.
fn serve(answer: Vec<u8>) -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(&answer);
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_is_passed_over_for_the_next() {
    let (slapd, certificate) = with_alice(Settings::default());
    // SearchResultDone with resultCode busy (51), in message 1.
    let busy = [0x30, 0x0c, 0x02, 0x01, 0x01, 0x65, 0x07, 0x0a, 0x01, 51, 0x04, 0, 0x04, 0];
    let mut config = plain(serve(busy.to_vec()));
    let directory = DirectoryServer::new(config.clone()).unwrap();
    let text = why(find(&directory, ALICE).await);
    assert!(text.contains("busy"), "{text}");
    config.servers.extend(plain(slapd.plain).servers);
    let directory = DirectoryServer::new(config).unwrap();
    assert_eq!(find(&directory, ALICE).await.unwrap(), [certificate]);
}

/// The library reads elements within elements by recursion: without a guard the process would be gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_nested_without_end_is_a_failure_and_no_more() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(&nested(100_000));
        }
    });
    let (slapd, _) = with_alice(Settings::default());
    let config =
        LdapConfig { starttls: false, ..config(&slapd, format!("ldap://127.0.0.1:{port}")) };
    let directory = DirectoryServer::new(config).unwrap();
    let why = why(find(&directory, ALICE).await);
    assert!(why.contains("the connection ended"), "{why}");
}

/// So many sequences, each in the one before.
fn nested(depth: usize) -> Vec<u8> {
    let headers = (0..depth).rev().map(|inner| {
        let length = u32::try_from(inner * 6).unwrap().to_be_bytes();
        [&[0x30, 0x84], &length[..]].concat()
    });
    headers.flatten().collect()
}
