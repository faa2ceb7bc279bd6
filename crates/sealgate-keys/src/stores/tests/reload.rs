//! Another configuration for open stores: taken where all of it is usable, else not at all.

use super::*;
use crate::public_key_store::directory_server::LdapBind;
use crate::secret_key_store::key_management_server::{KmipGet, KmipTls};

fn ldap(password: PathBuf) -> LdapConfig {
    LdapConfig {
        servers: vec!["ldap://127.0.0.1:1".to_owned()],
        starttls: false,
        ca: None,
        bind: LdapBind::Simple {
            name: "cn=gate".to_owned(),
            password: SecretSource::File(password),
        },
        base: "dc=example".to_owned(),
        filter: "(mail={address})".to_owned(),
        entries_max: 16,
        timeout: Duration::from_secs(1),
    }
}

fn kmip(directory: &Path) -> KmipConfig {
    KmipConfig {
        servers: Vec::new(),
        tls: Some(KmipTls {
            ca: directory.join("ca.pem"),
            certificate: directory.join("client.pem"),
            key: directory.join("client.key"),
        }),
        key_name: "{address}".to_owned(),
        certificate_name: "{address}".to_owned(),
        get: KmipGet::Never,
        timeout: Duration::from_secs(1),
        connections: 1,
    }
}

#[tokio::test]
async fn a_configuration_that_is_unusable_in_part_changes_nothing() {
    let (bed, stores) = Bed::new().await;
    generate(&stores, "alice@nec.example").await;
    let before = stores.settings();
    let unusable = [
        ("password", StoresConfig { ldap: Some(ldap(bed.path("password"))), ..bed.config.clone() }),
        ("bad.crl", StoresConfig { crls: vec![bed.path("bad.crl")], ..bed.config.clone() }),
        (
            "ca.pem",
            StoresConfig {
                secret_keys: SecretKeyStoreKind::Kmip,
                kmip: Some(kmip(bed.directory.path())),
                ..bed.config.clone()
            },
        ),
        (
            "missing.key",
            StoresConfig {
                master_key: SecretSource::File(bed.path("missing.key")),
                ..bed.config.clone()
            },
        ),
    ];
    for (word, config) in unusable {
        let refused = stores.reload(&config).await.unwrap_err().to_string();
        assert!(refused.contains(word), "{refused}");
        assert!(Arc::ptr_eq(&stores.settings(), &before), "{word}");
        assert_eq!(signing(&stores, "alice@nec.example").await.len(), 1, "{word}");
    }
    assert!(stores.trust().await.is_ok());
}

#[tokio::test]
async fn another_configuration_is_used_from_the_next_question_on() {
    let (bed, stores) = Bed::new().await;
    generate(&stores, "alice@nec.example").await;
    assert_eq!(signing(&stores, "alice@nec.example").await.len(), 1, "cached");
    let password = bed.path("password");
    std::fs::write(&password, "geheim").unwrap();
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let mut kmip = kmip(bed.directory.path());
    kmip.tls = None;
    let config = StoresConfig {
        secret_keys: SecretKeyStoreKind::Kmip,
        kmip: Some(kmip),
        public_keys: vec![PublicKeyStoreKind::Ldap],
        ldap: Some(ldap(password)),
        ..bed.config.clone()
    };
    stores.reload(&config).await.unwrap();
    let elsewhere = own(&stores, KeyQuery::Signing(address("alice@nec.example"))).await;
    assert!(elsewhere.is_err(), "no server is there");
    stores.reload(&bed.config).await.unwrap();
    assert_eq!(signing(&stores, "alice@nec.example").await.len(), 1, "back in the database");
}
