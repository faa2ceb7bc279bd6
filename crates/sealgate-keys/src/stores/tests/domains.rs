//! A domain's keys and certificates, which stand for its mailboxes where these have none that can be used.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use sealgate_core::encrypt::{NoKey, choose_certificate};
use sealgate_core::sign::choose_key;

use super::trust::Authority;
use super::*;
use crate::secret_key_store::{KeyPurpose, SecretKeyStoreKind, embedded};

on_both_databases! {
    a_domains_key_is_of_that_domain,
    an_expired_certificate_of_a_mailbox_does_not_hide_its_domains,
    expired_keys_of_a_mailbox_do_not_hide_its_domains,
}

const ALICE: &str = "alice@nec.example";

/// A key whose certificate began and ended in these years, for one purpose.
fn key(mailbox: &str, usage: KeyUsagePurpose, years: (i32, i32)) -> Material {
    let mut params = CertificateParams::default();
    params.key_usages = vec![usage];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    params.subject_alt_names = vec![SanType::Rfc822Name(mailbox.try_into().unwrap())];
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let mut material = Material::read(&key.serialize_der(), None).unwrap();
    material.append(Material::read(certificate.der(), None).unwrap());
    material
}

fn agreement(mailbox: &str, years: (i32, i32)) -> Material {
    key(mailbox, KeyUsagePurpose::KeyAgreement, years)
}

async fn chosen(stores: &Stores, text: &str) -> Result<Arc<Certificate>, NoKey> {
    let keys = public(stores, text).await;
    let trust = stores.trust().await.unwrap();
    let now = Timestamp(unix_now());
    let chosen = choose_certificate(&keys, &address(text), &trust, now, false);
    chosen.map(|chosen| chosen.certificate)
}

async fn an_expired_certificate_of_a_mailbox_does_not_hide_its_domains(bed: Bed) {
    let stores = bed.open().await;
    let administration = stores.administration();
    let bob = "bob@smime.example";
    let dana = certificate("certs/dana.encrypt.crt");
    administration.import_public_key(&owner("@smime.example"), &dana, &[]).await.unwrap();
    for years in [(2020, 2021), (2019, 2022), (2090, 2091)] {
        let out_of_date = agreement(bob, years).certificates.remove(0);
        administration.import_public_key(&owner(bob), &out_of_date, &[]).await.unwrap();
        assert_eq!(chosen(&stores, bob).await, Ok(Arc::clone(&dana)), "{years:?}");
    }
    // What signs his mail and cannot be encrypted to is none for this.
    let signs = key(bob, KeyUsagePurpose::DigitalSignature, (2020, 2090)).certificates.remove(0);
    administration.import_public_key(&owner(bob), &signs, &[]).await.unwrap();
    assert_eq!(chosen(&stores, bob).await, Ok(Arc::clone(&dana)));
    let own = agreement(bob, (2020, 2090)).certificates.remove(0);
    administration.import_public_key(&owner(bob), &own, &[]).await.unwrap();
    assert_eq!(chosen(&stores, bob).await, Ok(own));
    // Her gateway's signature counts for his mail still.
    let last = public(&stores, bob).await.pop().unwrap();
    assert!(last.certificate == dana && last.of_domain);
}

async fn a_domains_key_is_of_that_domain(bed: Bed) {
    let stores = bed.open().await;
    let import = async |mailbox: &str| {
        let keys = agreement(mailbox, (2020, 2090)).into_keys().unwrap();
        stores.administration().import_secret_keys(&owner("@nec.example"), keys).await
    };
    for mailbox in ["mallory@abc.example", "alice@sub.nec.example", "alice@xnec.example"] {
        let why = import(mailbox).await.unwrap_err().to_string();
        assert!(why.contains(mailbox) && why.contains("@nec.example"), "{why}");
    }
    for mailbox in ["domain-confidentiality-authority@nec.example", "alice@NEC.example"] {
        import(mailbox).await.unwrap();
    }
}

async fn expired_keys_of_a_mailbox_do_not_hide_its_domains(bed: Bed) {
    let stores = bed.open().await;
    let administration = stores.administration();
    let import = async |key: Material| {
        let keys = key.into_keys().unwrap();
        administration.import_secret_keys(&owner(ALICE), keys).await.unwrap().remove(0)
    };
    generate(&stores, "@nec.example").await;
    let old = import(agreement(ALICE, (2020, 2021))).await;
    import(key(ALICE, KeyUsagePurpose::DigitalSignature, (2020, 2021))).await;
    let domains = chosen(&stores, "carol@nec.example").await.unwrap();
    assert_eq!(chosen(&stores, ALICE).await, Ok(Arc::clone(&domains)));
    let is_for = |keys: &[OwnKey], certificate: &Arc<Certificate>| {
        keys.iter().any(|key| key.certificate == *certificate)
    };
    let opens = decryption(&stores, ALICE).await;
    assert!(is_for(&opens, &old) && is_for(&opens, &domains), "old mail, and new");
    let signs = signing(&stores, ALICE).await;
    let now = Timestamp(unix_now());
    assert_eq!(
        choose_key(&signs, &address(ALICE), &TrustStore::default(), now).unwrap().address,
        None
    );
    let new = import(agreement(ALICE, (2021, 2090))).await;
    assert_eq!(chosen(&stores, ALICE).await, Ok(new));
    // Where the domain's are elsewhere, and hers expired, her mail waits for them.
    for id in embedded::ids(&stores.database, Some("@nec.example")).await.unwrap() {
        let database = &stores.database;
        let read =
            async |master_key: Arc<MasterKey>| embedded::secret(database, &master_key, &id).await;
        let key = read(Arc::new(MasterKey::read(&bed.config.master_key).unwrap())).await.unwrap();
        if key.purpose == KeyPurpose::Sign {
            let to = SecretKeyStoreKind::Pkcs11;
            embedded::leave(database, &id, &key, to, unix_now()).await.unwrap();
        }
    }
    stores.changed();
    let waits = own(&stores, KeyQuery::Signing(address(ALICE))).await.map(|keys| keys.len());
    assert!(waits.is_err(), "{waits:?}");
}

/// As where the administrator takes it out. While nobody knows whether it is revoked, mail waits.
#[tokio::test]
async fn a_revoked_certificate_of_a_mailbox_gives_way_to_its_domains_and_an_undecided_one_does_not()
{
    let (bed, _stores) = Bed::new().await;
    let authority = Authority::new(&bed);
    let stores = authority.trusted().await;
    let administration = stores.administration();
    let (eve, dana) = ("eve@abc.example", certificate("certs/dana.encrypt.crt"));
    let leaf = authority.read("leaf.pem");
    administration.import_public_key(&owner(eve), &leaf, &[]).await.unwrap();
    administration.import_public_key(&owner("@abc.example"), &dana, &[]).await.unwrap();
    assert_eq!(chosen(&stores, eve).await, Ok(leaf));
    authority.revoke();
    assert_eq!(chosen(&stores, eve).await, Ok(Arc::clone(&dana)));
    let root = authority.read("ca.pem").fingerprint().to_string();
    administration.remove_anchor(&root).await.unwrap();
    assert_eq!(chosen(&stores, eve).await, Err(NoKey::Undecided), "nobody signed the list");
}
