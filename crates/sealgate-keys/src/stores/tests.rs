use std::path::Path;

use sealgate_core::address::Address;
use sealgate_core::encrypt::choose_certificate;
use sealgate_core::keys::{Certificate, Digest, SignatureScheme, Timestamp};
use sealgate_core::trust::{Purpose, Trust, TrustStore};
use sealgate_testkit::postgres::Postgres;

use super::*;
use crate::administration::establish;
use crate::authority::Algorithm;
use crate::database::Statement;
use crate::import::Material;
use crate::master_key::MasterKey;
use crate::owner::Owner;
use crate::secret_key_store::{KeyState, embedded};

/// Stores in a folder of their own.
struct Bed {
    directory: tempfile::TempDir,
    config: StoresConfig,
    /// Runs for as long as somebody holds it.
    _server: Option<Arc<Postgres>>,
}

impl Bed {
    async fn new() -> (Self, Stores) {
        let bed = Self::sqlite().await;
        let stores = bed.open().await;
        (bed, stores)
    }

    async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::Sqlite(directory.path().join("sealgate.db"));
        Self::established(directory, url, None).await
    }

    async fn postgres() -> Self {
        let server = Postgres::shared();
        let url = server.socket_url(&server.create_database()).parse().unwrap();
        Self::established(tempfile::tempdir().unwrap(), url, Some(server)).await
    }

    async fn established(
        directory: tempfile::TempDir,
        database: DatabaseUrl,
        server: Option<Arc<Postgres>>,
    ) -> Self {
        let key = directory.path().join("master.key");
        let config = StoresConfig {
            database,
            master_key: SecretSource::File(key.clone()),
            ..StoresConfig::default()
        };
        establish(&key, &config.database, &"nec.example".parse_domain()).await.unwrap();
        Self { directory, config, _server: server }
    }

    async fn open(&self) -> Stores {
        Stores::open(&self.config).await.unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Tests of what holds with either database.
macro_rules! on_both_databases {
    ($($name:ident,)*) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Bed::sqlite().await).await;
            })*
        }
        mod on_postgresql {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Bed::postgres().await).await;
            })*
        }
    };
}

on_both_databases! {
    a_cached_look_up_costs_a_fraction_of_a_query,
    a_change_by_another_process_is_noticed,
    a_certificate_of_a_revoked_key_is_not_published,
    a_database_that_is_sealed_under_no_key_takes_none,
    a_domains_certificate_serves_where_the_mailbox_has_none,
    a_swapped_row_is_refused,
    a_swapped_secret_is_refused,
    another_master_key_is_refused,
    generated_keys_sign_and_decrypt_for_their_address_only,
    our_own_certificates_are_trusted_through_our_authority,
    several_keys_of_an_address_come_newest_first,
    the_mailboxs_keys_come_before_the_domains,
}

mod domains;
mod ending;
mod gone;
mod importing;
mod learning;
mod moving;
mod reload;
mod revocation_lists;
mod rotation;
mod trust;
mod wiping;

trait ParseDomain {
    fn parse_domain(&self) -> Domain;
}

impl ParseDomain for str {
    fn parse_domain(&self) -> Domain {
        Domain::parse(self).unwrap()
    }
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn owner(text: &str) -> Owner {
    text.parse().unwrap()
}

async fn own(stores: &Stores, query: KeyQuery) -> Result<Vec<OwnKey>, LookupError> {
    let mut keys = Keys::default();
    stores.answer(std::slice::from_ref(&query), &mut keys).await;
    keys.own.remove(&query).unwrap()
}

async fn signing(stores: &Stores, text: &str) -> Vec<OwnKey> {
    own(stores, KeyQuery::Signing(address(text))).await.unwrap()
}

async fn decryption(stores: &Stores, text: &str) -> Vec<OwnKey> {
    own(stores, KeyQuery::Decryption(address(text))).await.unwrap()
}

async fn public(stores: &Stores, text: &str) -> Vec<PublicKey> {
    let mut keys = Keys::default();
    stores.answer(&[KeyQuery::Public(address(text))], &mut keys).await;
    keys.public.remove(&address(text)).unwrap().unwrap()
}

async fn generate(stores: &Stores, text: &str) {
    let made = stores.administration().generate_secret_keys(&owner(text), Algorithm::P256).await;
    assert_eq!(made.unwrap().len(), 2);
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures/rfc9216/");
    std::fs::read(Path::new(folder).join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}: this test needs the shared fixtures"))
}

fn certificate(name: &str) -> Arc<Certificate> {
    Arc::clone(&Material::read(&fixture(name), None).unwrap().certificates[0])
}

async fn generated_keys_sign_and_decrypt_for_their_address_only(bed: Bed) {
    let stores = bed.open().await;
    generate(&stores, "Alice@NEC.example").await;
    let keys = signing(&stores, "alice@nec.example").await;
    assert_eq!(keys.len(), 1);
    assert!(keys[0].certificate.may_sign() && !keys[0].certificate.may_encrypt());
    let signature = keys[0].secret.sign(SignatureScheme::Ecdsa(Digest::Sha256), b"text");
    assert!(!signature.unwrap().is_empty());
    let keys = decryption(&stores, "ALICE@nec.example").await;
    assert_eq!(keys.len(), 1);
    assert!(keys[0].certificate.may_encrypt() && !keys[0].certificate.may_sign());
    assert!(signing(&stores, "bob@nec.example").await.is_empty());
    assert!(decryption(&stores, "bob@nec.example").await.is_empty());
}

async fn our_own_certificates_are_trusted_through_our_authority(bed: Bed) {
    let stores = bed.open().await;
    generate(&stores, "alice@nec.example").await;
    let trust = stores.trust().await.unwrap();
    let now = Timestamp(unix_now());
    let signer = &signing(&stores, "alice@nec.example").await[0];
    assert_eq!(trust.judge(&signer.certificate, &[], Purpose::Sign, now), Trust::Trusted);
    let recipient = &public(&stores, "alice@nec.example").await[0];
    assert_eq!(trust.judge(&recipient.certificate, &[], Purpose::Encrypt, now), Trust::Trusted);
    let capabilities = recipient.certificate.capabilities().unwrap();
    assert!(capabilities.aes_256_gcm && capabilities.aes_128_gcm && capabilities.aes_256_cbc);
}

#[tokio::test]
async fn every_algorithm_gives_keys_that_the_core_takes() {
    let (_bed, stores) = Bed::new().await;
    for (index, algorithm) in [
        Algorithm::Rsa2048,
        Algorithm::Rsa3072,
        Algorithm::Rsa4096,
        Algorithm::P256,
        Algorithm::P384,
        Algorithm::Ed25519,
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!("user{index}@nec.example");
        let owner = owner(&text);
        stores.administration().generate_secret_keys(&owner, algorithm).await.unwrap();
        assert_eq!(signing(&stores, &text).await.len(), 1, "{algorithm:?}");
        assert_eq!(decryption(&stores, &text).await.len(), 1, "{algorithm:?}");
    }
    assert_eq!(stores.administration().check_secret_keys().await.unwrap(), "12 usable");
}

async fn the_mailboxs_keys_come_before_the_domains(bed: Bed) {
    let stores = bed.open().await;
    generate(&stores, "@nec.example").await;
    let keys = decryption(&stores, "bob@nec.example").await;
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].address, None);
    generate(&stores, "bob@nec.example").await;
    let keys = decryption(&stores, "bob@nec.example").await;
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0].address, Some(address("bob@nec.example")));
    assert_eq!(keys[1].address, None);
    let offered = public(&stores, "bob@nec.example").await;
    assert!(offered[0].certificate.names(&address("bob@nec.example")));
    let of_domain: Vec<_> = offered.iter().map(|key| key.of_domain).collect();
    assert_eq!(of_domain, [false, true]);
    assert_eq!(public(&stores, "carol@nec.example").await.len(), 1);
    assert!(decryption(&stores, "bob@other.example").await.is_empty());
}

async fn several_keys_of_an_address_come_newest_first(bed: Bed) {
    let stores = bed.open().await;
    let alice = owner("alice@smime.example");
    let imported = |name: &'static str| Material::read(&fixture(name), Some("alice")).unwrap();
    let keys = imported("p12/alice.p12").into_keys().unwrap();
    stores.administration().import_secret_keys(&alice, keys).await.unwrap();
    generate(&stores, "alice@smime.example").await;
    let keys = decryption(&stores, "alice@smime.example").await;
    assert_eq!(keys.len(), 2);
    assert!(keys[0].certificate.not_before() > keys[1].certificate.not_before());
    let keys = imported("p12/alice.p12").into_keys().unwrap();
    let again = stores.administration().import_secret_keys(&alice, keys).await;
    assert!(matches!(again, Err(StoreError::Exists(_))));
    let keys = imported("p12/alice.p12").into_keys().unwrap();
    let wrong = stores.administration().import_secret_keys(&owner("bob@smime.example"), keys).await;
    assert!(wrong.unwrap_err().to_string().contains("alice@smime.example"));
}

#[tokio::test]
async fn an_expired_key_is_kept_for_decryption() {
    let (bed, stores) = Bed::new().await;
    let openssl = |arguments: &[&str]| {
        let run = std::process::Command::new("openssl").args(arguments).output();
        assert!(run.expect("this test needs the openssl program").status.success());
    };
    let (key, pem) = (bed.path("old.key"), bed.path("old.pem"));
    let (key, pem) = (key.to_str().unwrap(), pem.to_str().unwrap());
    openssl(&[
        "req",
        "-new",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        key,
        "-subj",
        "/CN=x",
        "-addext",
        "subjectAltName=email:alice@nec.example",
        "-x509",
        "-days",
        "1",
        "-out",
        pem,
        "-addext",
        "keyUsage=keyEncipherment",
        "-addext",
        "extendedKeyUsage=emailProtection",
    ]);
    // openssl req cannot make a certificate that has ended: sign it again with dates of long ago.
    openssl(&["x509", "-in", pem, "-signkey", key, "-days", "-1", "-out", pem]);
    let mut material = Material::read(&std::fs::read(key).unwrap(), None).unwrap();
    material.append(Material::read(&std::fs::read(pem).unwrap(), None).unwrap());
    let alice = owner("alice@nec.example");
    let keys = material.into_keys().unwrap();
    let now = Timestamp(unix_now());
    assert!(keys[0].certificate().not_after() < now, "the certificate has ended");
    stores.administration().import_secret_keys(&alice, keys).await.unwrap();
    assert_eq!(decryption(&stores, "alice@nec.example").await.len(), 1);
    assert!(signing(&stores, "alice@nec.example").await.is_empty());
}

async fn a_swapped_row_is_refused(bed: Bed) {
    let stores = bed.open().await;
    generate(&stores, "alice@nec.example").await;
    generate(&stores, "mallory@nec.example").await;
    // Mallory gives herself Alice's key.
    let update = Statement::new(
        "UPDATE secret_keys SET owner = 'mallory@nec.example' WHERE owner = 'alice@nec.example'",
    );
    stores.database.execute(update).await.unwrap();
    let refused = own(&stores, KeyQuery::Decryption(address("mallory@nec.example"))).await;
    assert!(refused.unwrap_err().to_string().contains("changed outside sealgate"));
    let refused = own(&stores, KeyQuery::Signing(address("mallory@nec.example"))).await;
    assert!(refused.is_err());
    assert!(stores.administration().check_secret_keys().await.is_err());
}

async fn a_swapped_secret_is_refused(bed: Bed) {
    let stores = bed.open().await;
    generate(&stores, "alice@nec.example").await;
    generate(&stores, "mallory@nec.example").await;
    let update = Statement::new(
        "UPDATE secret_keys SET wrapped = (SELECT wrapped FROM secret_keys WHERE \
         owner = 'alice@nec.example' AND purpose = 'sign') \
         WHERE owner = 'mallory@nec.example' AND purpose = 'sign'",
    );
    stores.database.execute(update).await.unwrap();
    assert!(own(&stores, KeyQuery::Signing(address("mallory@nec.example"))).await.is_err());
    assert_eq!(signing(&stores, "alice@nec.example").await.len(), 1);
}

async fn another_master_key_is_refused(bed: Bed) {
    let stores = bed.open().await;
    drop(stores);
    std::fs::remove_file(bed.path("master.key")).unwrap();
    assert!(matches!(Stores::open(&bed.config).await, Err(StoreError::Secret { .. })));
    MasterKey::create(&bed.path("master.key")).unwrap();
    let refused = Stores::open(&bed.config).await.unwrap_err();
    assert!(matches!(refused, StoreError::WrongMasterKey { .. }), "{refused}");
}

async fn a_database_that_is_sealed_under_no_key_takes_none(bed: Bed) {
    let stores = bed.open().await;
    stores.database.execute(Statement::new("DELETE FROM facts")).await.unwrap();
    let refused = Stores::open(&bed.config).await.unwrap_err();
    assert!(matches!(refused, StoreError::DatabaseEmpty(_)), "{refused}");
    let facts = stores.database.fetch_all(Statement::new("SELECT name FROM facts")).await;
    assert!(facts.unwrap().is_empty());
}

#[tokio::test]
async fn no_secret_stands_in_the_database_in_the_clear() {
    let (bed, stores) = Bed::new().await;
    let alice = owner("alice@smime.example");
    let key = fixture("keys/alice.sign.key");
    let mut material = Material::read(&key, None).unwrap();
    material.append(Material::read(&fixture("certs/alice.sign.crt"), None).unwrap());
    let keys = material.into_keys().unwrap();
    let secret = keys[0].pkcs8.to_vec();
    stores.administration().import_secret_keys(&alice, keys).await.unwrap();
    let checkpoint = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)");
    checkpoint.execute(stores.database.sqlite_pool()).await.unwrap();
    let file = std::fs::read(bed.path("sealgate.db")).unwrap();
    for part in secret.chunks_exact(32) {
        // Public numbers stand in the certificate too; no run of the private ones does.
        let public = certificate("certs/alice.sign.crt");
        if !public.der().windows(8).any(|window| part.windows(8).any(|p| p == window)) {
            assert!(!file.windows(32).any(|window| window == part));
        }
    }
}

async fn a_change_by_another_process_is_noticed(bed: Bed) {
    let stores = bed.open().await;
    let other = Stores::open(&bed.config).await.unwrap();
    let before = stores.trust().await.unwrap();
    assert!(signing(&stores, "alice@nec.example").await.is_empty());
    assert!(Arc::ptr_eq(&before, &stores.trust().await.unwrap()));
    generate(&other, "alice@nec.example").await;
    other.administration().import_anchor(&certificate("certs/rsa-ca-root.crt")).await.unwrap();
    assert_eq!(signing(&other, "alice@nec.example").await.len(), 1, "at once where it was made");
    tokio::time::sleep(WATCH_INTERVAL + Duration::from_millis(100)).await;
    assert_eq!(signing(&stores, "alice@nec.example").await.len(), 1);
    assert!(!Arc::ptr_eq(&before, &stores.trust().await.unwrap()));
    other.administration().remove_secret_keys(&owner("alice@nec.example")).await.unwrap();
    tokio::time::sleep(WATCH_INTERVAL + Duration::from_millis(100)).await;
    assert!(signing(&stores, "alice@nec.example").await.is_empty());
}

async fn a_cached_look_up_costs_a_fraction_of_a_query(bed: Bed) {
    const LOOK_UPS: usize = 100;
    let stores = bed.open().await;
    generate(&stores, "alice@nec.example").await;
    assert_eq!(signing(&stores, "alice@nec.example").await.len(), 1);
    // The shortest of a few rounds each: a machine that does other work now and then has no say.
    let [mut cached, mut asked] = [Duration::MAX; 2];
    for round in 0..5 {
        let started = Instant::now();
        for _ in 0..LOOK_UPS {
            assert_eq!(signing(&stores, "alice@nec.example").await.len(), 1);
        }
        cached = cached.min(started.elapsed());
        let started = Instant::now();
        for number in 0..LOOK_UPS {
            let unknown = format!("{round}.{number}@nec.example");
            assert!(signing(&stores, &unknown).await.is_empty());
        }
        asked = asked.min(started.elapsed());
    }
    assert!(cached * 3 < asked, "{cached:?} and {asked:?}");
}

async fn a_domains_certificate_serves_where_the_mailbox_has_none(bed: Bed) {
    let stores = bed.open().await;
    let administration = stores.administration();
    let (bob, dana) = (certificate("certs/bob.encrypt.crt"), certificate("certs/dana.encrypt.crt"));
    administration.import_public_key(&owner("@smime.example"), &dana, &[]).await.unwrap();
    let keys = public(&stores, "bob@smime.example").await;
    assert_eq!(keys[0].certificate.fingerprint(), dana.fingerprint());
    administration.import_public_key(&owner("bob@smime.example"), &bob, &[]).await.unwrap();
    let keys = public(&stores, "bob@smime.example").await;
    let found = |index: usize| (keys[index].certificate.fingerprint(), keys[index].of_domain);
    assert_eq!(found(0), (bob.fingerprint(), false));
    assert_eq!(found(1), (dana.fingerprint(), true), "whose signature counts all the same");
    assert_eq!(keys.len(), 2);
    let at = bob.not_before();
    let bobs = "bob@smime.example".parse().unwrap();
    let chosen = choose_certificate(&keys, &bobs, &TrustStore::default(), at, false).unwrap();
    assert_eq!(chosen.certificate.fingerprint(), bob.fingerprint());
    let other = dana.fingerprint().to_string();
    let bobs = owner("bob@smime.example");
    assert!(administration.remove_public_keys(&bobs, Some(&other)).await.is_err());
    assert_eq!(public(&stores, "bob@smime.example").await.len(), 2);
    let own = bob.fingerprint().to_string();
    assert_eq!(administration.remove_public_keys(&bobs, Some(&own)).await.unwrap(), 1);
    administration.import_public_key(&bobs, &bob, &[]).await.unwrap();
    administration.remove_public_keys(&owner("bob@smime.example"), None).await.unwrap();
    assert!(administration.remove_public_keys(&owner("bob@smime.example"), None).await.is_err());
}

async fn a_certificate_of_a_revoked_key_is_not_published(bed: Bed) {
    let stores = bed.open().await;
    let alice = "alice@nec.example";
    generate(&stores, alice).await;
    let old = decryption(&stores, alice).await.remove(0).certificate;
    let rows = embedded::of_owner(&stores.database, alice, 9).await.unwrap();
    for row in &rows {
        assert!(embedded::revoke(&stores.database, row.id(), KeyState::Compromised).await.unwrap());
    }
    generate(&stores, "bob@nec.example").await;
    let administration = stores.administration();
    let published = administration.publishable(None).await.unwrap();
    assert_eq!(published.keys().collect::<Vec<_>>(), ["bob@nec.example"]);
    let listed = administration.secret_keys(Some(&owner(alice))).await.unwrap();
    assert!(listed.iter().all(|entry| !entry.is_active), "and are listed as what they are");
    generate(&stores, alice).await;
    let published = administration.publishable(None).await.unwrap();
    assert_eq!(published[alice].len(), 2);
    assert!(!published[alice].contains(&old));
}

/// Administrators give a file with everything: what is kept must be what can be read again.
#[tokio::test]
async fn of_many_authorities_those_that_may_have_issued_a_certificate_are_kept() {
    let (_bed, stores) = Bed::new().await;
    let administration = stores.administration();
    let authority = |number: u32| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority {number}"));
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        Arc::new(Certificate::from_der(made.der()).unwrap())
    };
    let root = certificate("certs/rsa-ca-root.crt");
    let bundle: Vec<_> = (0..100).map(authority).chain([Arc::clone(&root)]).collect();
    let (bob, leaf) = (owner("bob@smime.example"), certificate("certs/bob.encrypt.crt"));
    administration.import_public_key(&bob, &leaf, &bundle).await.unwrap();
    let kept = administration.public_keys(None).await.unwrap();
    assert_eq!(kept[0].intermediates, [root]);
    assert_eq!(public(&stores, "bob@smime.example").await.len(), 1);
}

#[tokio::test]
async fn questions_that_cannot_be_answered_in_time_get_an_error() {
    let (bed, _stores) = Bed::new().await;
    let config = StoresConfig { lookup_timeout: Duration::from_millis(50), ..bed.config.clone() };
    let stores = Stores::open(&config).await.unwrap();
    // All connections are taken by something that does not end.
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(stores.database.sqlite_pool().acquire().await.unwrap());
    }
    let started = Instant::now();
    let answer = own(&stores, KeyQuery::Signing(address("alice@nec.example"))).await;
    assert!(answer.unwrap_err().to_string().contains("in time"));
    assert!(started.elapsed() < Duration::from_secs(2));
    drop(taken);
    assert!(signing(&stores, "alice@nec.example").await.is_empty());
}
