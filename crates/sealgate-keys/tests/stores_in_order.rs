//! Several public key stores, asked in order: what one has and nobody can use does not hide what the next one has, and is
//! never the answer while another is away.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, KeyPair, SanType};
use sealgate_core::address::{Address, Domain};
use sealgate_core::encrypt::{NoKey, choose_certificate};
use sealgate_core::keys::{Certificate, LookupError, PublicKey, Timestamp};
use sealgate_core::step::{KeyQuery, Keys};
use sealgate_keys::administration::establish;
use sealgate_keys::database::DatabaseUrl;
use sealgate_keys::import::Material;
use sealgate_keys::public_key_store::PublicKeyStoreKind::{self, Embedded, Ldap};
use sealgate_keys::public_key_store::directory_server::{CERTIFICATES_MAX, LdapBind, LdapConfig};
use sealgate_keys::secret_source::SecretSource;
use sealgate_keys::stores::{Stores, StoresConfig};
use sealgate_testkit::pki::{KeyKind, Pki, Reads};
use sealgate_testkit::slapd::{BASE, PEOPLE, Person, Settings, Slapd};
use tempfile::TempDir;

const BOB: &str = "bob@abc.example";
/// REQUIREMENTS O12.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// A directory server, and stores of an organisation that trusts its authority.
struct Bed {
    slapd: Slapd,
    stores: Stores,
    _directory: TempDir,
}

impl Bed {
    async fn new(order: &[PublicKeyStoreKind]) -> Self {
        Self::with(order, StoresConfig::default()).await
    }

    async fn with(order: &[PublicKeyStoreKind], defaults: StoresConfig) -> Self {
        let slapd = Slapd::start(Settings::default());
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("master.key");
        let config = StoresConfig {
            database: DatabaseUrl::Sqlite(directory.path().join("sealgate.db")),
            master_key: SecretSource::File(key.clone()),
            public_keys: order.to_vec(),
            ldap: Some(LdapConfig {
                servers: vec![slapd.tls_url()],
                starttls: false,
                ca: Some(slapd.pki.root.clone()),
                bind: LdapBind::Anonymous,
                base: BASE.to_owned(),
                filter: "(mail={address})".to_owned(),
                entries_max: 5,
                timeout: Duration::from_secs(2),
            }),
            ..defaults
        };
        establish(&key, &config.database, &Domain::parse("nec.example").unwrap()).await.unwrap();
        let stores = Stores::open(&config).await.unwrap();
        let root = std::fs::read(&slapd.pki.root).unwrap();
        for anchor in Material::read(&root, None).unwrap().certificates {
            stores.administration().import_anchor(&anchor).await.unwrap();
        }
        Self { slapd, stores, _directory: directory }
    }

    /// Puts certificates into the directory.
    fn list(&mut self, certificates: Vec<Vec<u8>>) {
        let address = BOB.to_owned();
        self.slapd.add_person(&Person { address, certificates, signed_data: Vec::new() });
    }

    /// Imports a certificate for Bob.
    async fn pin(&self, der: &[u8]) {
        self.pin_for(BOB, der).await;
    }

    async fn pin_for(&self, owner: &str, der: &[u8]) {
        let certificate = Certificate::from_der(der).unwrap();
        let (owner, administration) = (owner.parse().unwrap(), self.stores.administration());
        administration.import_public_key(&owner, &certificate, &[]).await.unwrap();
    }

    /// Whether these are the answer before long: a server that was away is not asked again at once.
    async fn gives(&self, expected: &[Vec<u8>]) -> bool {
        let until = Instant::now() + BACK_WITHIN;
        loop {
            if self.ask().await.is_ok_and(|found| found == expected) {
                return true;
            }
            if Instant::now() > until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn keys(&self) -> Result<Vec<PublicKey>, LookupError> {
        let bob = Address::parse(BOB).unwrap();
        let mut keys = Keys::default();
        self.stores.answer(&[KeyQuery::Public(bob.clone())], &mut keys).await;
        keys.public.remove(&bob).unwrap()
    }

    async fn ask(&self) -> Result<Vec<Vec<u8>>, LookupError> {
        let found = self.keys().await?;
        Ok(found.iter().map(|key| key.certificate.der().to_vec()).collect())
    }
}

fn usable(pki: &Pki) -> Vec<u8> {
    pki.issue(BOB, KeyKind::P256, Reads::Unsaid).certificate_der()
}

/// A certificate of Bob's whose time is over.
fn expired() -> Vec<u8> {
    let (_, certificate) = expired_pair();
    let der = Material::read(certificate.as_bytes(), None).unwrap().certificates[0].der().to_vec();
    assert!(Certificate::from_der(&der).unwrap().may_encrypt());
    der
}

/// One of Bob's that ends so soon, under no authority.
fn ending_in(time: Duration) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::Rfc822Name(Ia5String::try_from(BOB).unwrap())];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + time;
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

/// Its secret key and itself, PEM.
fn expired_pair() -> (String, String) {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::Rfc822Name(Ia5String::try_from(BOB).unwrap())];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (key.serialize_pem(), certificate.pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_hides_no_later_stores_good_one() {
    let mut bed = Bed::new(&[Embedded, Ldap]).await;
    let good = usable(&bed.slapd.pki);
    bed.list(vec![good.clone()]);
    bed.pin(&expired()).await;
    assert!(bed.ask().await.unwrap().last() == Some(&good));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_directory_has_is_kept_briefly_where_it_is_of_no_use() {
    let defaults = StoresConfig {
        cache_ttl: Duration::from_secs(600),
        cache_negative_ttl: Duration::from_millis(100),
        ..StoresConfig::default()
    };
    let mut bed = Bed::with(&[Ldap], defaults).await;
    let (old, good) = (expired(), usable(&bed.slapd.pki));
    bed.list(vec![old.clone()]);
    assert!(bed.ask().await.unwrap() == [old.clone()]);
    // The directory tells nobody of it.
    bed.list(vec![good.clone()]);
    assert!(bed.gives(&[good.clone(), old]).await);
    bed.list(vec![usable(&Pki::new("Other"))]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(bed.ask().await.unwrap().first() == Some(&good), "what is of use is kept");
    assert!(bed.ask().await.unwrap().len() == 2, "what is of use is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_expired_since_it_was_kept_hides_no_later_stores_good_one() {
    let mut bed = Bed::new(&[Embedded, Ldap]).await;
    let good = usable(&bed.slapd.pki);
    bed.list(vec![good.clone()]);
    let ending = ending_in(Duration::from_secs(3));
    bed.pin(&ending).await;
    assert!(bed.ask().await.unwrap() == [ending.clone()]);
    assert!(bed.gives(&[ending, good]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_certificate_in_the_directory_hides_no_imported_one() {
    let mut bed = Bed::new(&[Ldap, Embedded]).await;
    bed.list(vec![usable(&Pki::new("Stranger"))]);
    let good = usable(&bed.slapd.pki);
    bed.pin(&good).await;
    assert!(bed.ask().await.unwrap().last() == Some(&good));
}

/// What his domain can read stands in for what he can, in whatever store that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domains_certificate_hides_no_later_stores_one_of_the_mailbox() {
    let mut bed = Bed::new(&[Embedded, Ldap]).await;
    let of_domain = bed.slapd.pki.issue("gate@abc.example", KeyKind::P256, Reads::Unsaid);
    bed.pin_for("@abc.example", &of_domain.certificate_der()).await;
    let own = usable(&bed.slapd.pki);
    bed.list(vec![own.clone()]);
    assert!(bed.gives(&[own, of_domain.certificate_der()]).await, "his own first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_expired_is_no_answer_while_another_store_is_away() {
    let mut bed = Bed::new(&[Ldap, Embedded]).await;
    let good = usable(&bed.slapd.pki);
    bed.list(vec![good.clone()]);
    bed.pin(&expired()).await;
    bed.slapd.kill();
    let away = bed.ask().await.unwrap_err();
    assert!(away.0.contains("directory server"), "{away:?}");
    bed.slapd.start_again();
    assert!(bed.gives(&[good]).await, "what was said while it was away is not kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_of_our_own_is_no_answer_while_another_store_is_away() {
    let mut bed = Bed::new(&[Embedded, Ldap]).await;
    let good = usable(&bed.slapd.pki);
    bed.list(vec![good.clone()]);
    let (key, certificate) = expired_pair();
    let pem = format!("{key}{certificate}");
    let keys = Material::read(pem.as_bytes(), None).unwrap().into_keys().unwrap();
    let (owner, administration) = (BOB.parse().unwrap(), bed.stores.administration());
    administration.import_secret_keys(&owner, keys).await.unwrap();
    bed.slapd.kill();
    let away = bed.ask().await.unwrap_err();
    assert!(away.0.contains("directory server"), "{away:?}");
    bed.slapd.start_again();
    let until = Instant::now() + BACK_WITHIN;
    while !bed.ask().await.is_ok_and(|found| found.contains(&good)) {
        assert!(Instant::now() < until, "the directory's certificate is not found");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_later_store_had_while_the_first_was_away_is_not_kept() {
    let mut bed = Bed::new(&[Ldap, Embedded]).await;
    let (listed, pinned) = (usable(&bed.slapd.pki), usable(&bed.slapd.pki));
    bed.list(vec![listed.clone()]);
    bed.pin(&pinned).await;
    bed.slapd.kill();
    assert!(bed.ask().await.unwrap() == [pinned]);
    bed.slapd.start_again();
    assert!(bed.gives(&[listed]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_without_certificate_beside_a_referral_is_not_no_key() {
    let mut bed = Bed::new(&[Ldap]).await;
    bed.list(Vec::new());
    assert!(bed.ask().await.unwrap().is_empty());

    let mut bed = Bed::new(&[Ldap]).await;
    bed.list(Vec::new());
    let elsewhere = format!(
        "dn: ou=elsewhere,{PEOPLE}\nobjectClass: referral\nobjectClass: extensibleObject\nou: elsewhere\n\
         ref: ldap://127.0.0.1:9/ou=elsewhere,{PEOPLE}\n"
    );
    bed.slapd.change("ldapadd", &elsewhere);
    let why = bed.ask().await.unwrap_err();
    assert!(why.0.contains("refers to other servers"), "{why:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_directory_has_and_nobody_can_read_is_not_no_key() {
    let mut bed = Bed::new(&[Ldap]).await;
    let good = usable(&bed.slapd.pki);
    // BER without meaning, which is all that the server looks at.
    let unreadable = |bed: &mut Bed| {
        let signed_data = vec![vec![0x30, 0x03, 0x02, 0x01, 0x05]];
        let address = BOB.to_owned();
        bed.slapd.add_person(&Person { address, certificates: Vec::new(), signed_data });
    };
    unreadable(&mut bed);
    let away = bed.ask().await.unwrap_err();
    assert!(away.0.contains("take it out of the directory"), "{away:?}");
    // Nor is what can be read and not be encrypted to.
    bed.list(vec![expired()]);
    assert!(bed.ask().await.is_err());
    // Others are of no concern to it, and what can be used is used.
    bed.list(vec![good.clone()]);
    assert!(bed.ask().await.unwrap().first() == Some(&good));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_certificates_before_those_that_are_not_looked_at_are_not_no_key() {
    let stranger = Pki::new("Stranger");
    for (count, says) in [(CERTIFICATES_MAX + 1, "more than 16"), (65, "more than 64")] {
        let mut bed = Bed::new(&[Ldap]).await;
        bed.list((0..count).map(|_| usable(&stranger)).collect());
        let away = bed.ask().await.unwrap_err();
        assert!(away.0.contains(says), "{away:?}");
    }
    let mut bed = Bed::new(&[Ldap]).await;
    bed.list((0..CERTIFICATES_MAX).map(|_| usable(&stranger)).collect());
    assert_eq!(bed.ask().await.unwrap().len(), CERTIFICATES_MAX, "all were looked at");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_answer_that_is_cut_off_what_can_be_used_is_used() {
    let mut bed = Bed::new(&[Ldap]).await;
    let good = usable(&bed.slapd.pki);
    bed.list(vec![good.clone()]);
    // One entry more than are taken.
    for _ in 0..5 {
        bed.list(vec![expired()]);
    }
    assert!(bed.ask().await.unwrap().contains(&good));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_expired_certificates_hide_no_later_stores_good_one() {
    let mut bed = Bed::new(&[Embedded, Ldap]).await;
    let good = usable(&bed.slapd.pki);
    bed.list(vec![good.clone()]);
    for _ in 0..40 {
        bed.pin(&expired()).await;
    }
    let (bob, trust) = (Address::parse(BOB).unwrap(), bed.stores.trust().await.unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = Timestamp(i64::try_from(now.as_secs()).unwrap());
    let choose = |keys: &[PublicKey]| choose_certificate(keys, &bob, &trust, now, false);
    let keys = bed.keys().await.unwrap();
    assert_eq!(keys.len(), 41);
    assert_eq!(choose(&keys).unwrap().certificate.der(), good);
    let expired = keys.split_last().unwrap().1;
    assert_eq!(choose(expired).unwrap_err(), NoKey::Unusable);
}
