//! What verified mail teaches, what becomes of it, and what it never replaces.

use sealgate_core::keys::Capabilities;

use super::*;
use crate::public_key_store::PublicKeyState;

on_both_databases! {
    a_pinned_certificate_is_never_replaced_by_a_learned_one,
    learned_candidates_are_bounded,
    nothing_is_learned_into_a_store_that_is_not_asked,
    older_capabilities_never_overwrite_newer_ones,
    what_mail_teaches_is_not_used_before_it_is_accepted,
}

async fn what_mail_teaches_is_not_used_before_it_is_accepted(bed: Bed) {
    let stores = bed.open().await;
    let harvest = Harvest {
        address: address("bob@smime.example"),
        certificates: vec![certificate("certs/bob.encrypt.crt")],
        intermediates: vec![certificate("certs/rsa-ca-cross.crt")],
        capabilities: Some(Capabilities { aes_256_gcm: true, ..Capabilities::default() }),
        signed_at: Some(Timestamp(1000)),
    };
    stores.learn(&harvest).await.unwrap();
    assert!(public(&stores, "bob@smime.example").await.is_empty());
    let bob = owner("bob@smime.example");
    let listed = stores.administration().public_keys(Some(&bob)).await.unwrap();
    assert_eq!(listed[0].state, PublicKeyState::Candidate);
    assert_eq!(stores.administration().accept_public_keys(&bob, None).await.unwrap(), 1);
    let keys = public(&stores, "bob@smime.example").await;
    assert_eq!(keys.len(), 1);
    assert!(keys[0].pinned && keys[0].capabilities.unwrap().aes_256_gcm);
    assert_eq!(keys[0].intermediates.len(), 1);
    assert!(stores.administration().accept_public_keys(&bob, None).await.is_err());
}

async fn nothing_is_learned_into_a_store_that_is_not_asked(bed: Bed) {
    let mut config = bed.config.clone();
    config.public_keys = vec![PublicKeyStoreKind::Ldap];
    let stores = Stores::open(&config).await.unwrap();
    let harvest = Harvest {
        address: address("bob@smime.example"),
        certificates: vec![certificate("certs/bob.encrypt.crt")],
        intermediates: Vec::new(),
        capabilities: Some(Capabilities { aes_256_gcm: true, ..Capabilities::default() }),
        signed_at: Some(Timestamp(1000)),
    };
    stores.learn(&harvest).await.unwrap();
    let bob = owner("bob@smime.example");
    assert!(stores.administration().public_keys(Some(&bob)).await.unwrap().is_empty());
    let learned = crate::public_key_store::embedded::learned(&stores.database, &harvest.address);
    assert!(learned.await.unwrap().unwrap().aes_256_gcm, "what his software reads is kept");
    stores.reload(&bed.config).await.unwrap();
    stores.learn(&harvest).await.unwrap();
    assert_eq!(stores.administration().public_keys(Some(&bob)).await.unwrap().len(), 1);
}

async fn a_pinned_certificate_is_never_replaced_by_a_learned_one(bed: Bed) {
    let stores = bed.open().await;
    let bob = owner("bob@smime.example");
    let pinned = certificate("certs/bob.encrypt.crt");
    stores.administration().import_public_key(&bob, &pinned, &[]).await.unwrap();
    let harvest = Harvest {
        address: address("bob@smime.example"),
        certificates: vec![Arc::clone(&pinned), certificate("certs/dana.encrypt.crt")],
        intermediates: vec![certificate("certs/rsa-ca-cross.crt")],
        capabilities: None,
        signed_at: Some(Timestamp(1000)),
    };
    stores.learn(&harvest).await.unwrap();
    let keys = public(&stores, "bob@smime.example").await;
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].certificate.fingerprint(), pinned.fingerprint());
    assert!(keys[0].intermediates.is_empty());
}

async fn older_capabilities_never_overwrite_newer_ones(bed: Bed) {
    let stores = bed.open().await;
    let bob = owner("bob@smime.example");
    let pinned = certificate("certs/bob.encrypt.crt");
    stores.administration().import_public_key(&bob, &pinned, &[]).await.unwrap();
    let harvest = |oaep: bool, at: Option<i64>| Harvest {
        address: address("bob@smime.example"),
        certificates: Vec::new(),
        intermediates: Vec::new(),
        capabilities: Some(Capabilities { rsa_oaep: oaep, ..Capabilities::default() }),
        signed_at: at.map(Timestamp),
    };
    let now = unix_now();
    for (oaep, at, expected) in [
        (true, Some(2000), true),
        (false, Some(1000), true),
        (false, None, true),
        (false, Some(3000), false),
        (false, Some(5000), false),
        (true, Some(4000), false),
        // A time in the future counts as now, and the next second is later than that.
        (true, Some(now + 1_000_000), true),
    ] {
        stores.learn(&harvest(oaep, at)).await.unwrap();
        let keys = public(&stores, "bob@smime.example").await;
        assert_eq!(keys[0].capabilities.unwrap().rsa_oaep, expected, "{oaep} at {at:?}");
    }
    // Another process knows what is in the database only, and that keeps to the order too.
    let other = Stores::open(&bed.config).await.unwrap();
    other.learn(&harvest(false, Some(4500))).await.unwrap();
    let keys = public(&other, "bob@smime.example").await;
    assert!(keys[0].capabilities.unwrap().rsa_oaep);
}

async fn learned_candidates_are_bounded(bed: Bed) {
    let stores = bed.open().await;
    for index in 0..20 {
        generate(&stores, &format!("user{index}@nec.example")).await;
        let found = &public(&stores, &format!("user{index}@nec.example")).await[0];
        let harvest = Harvest {
            address: address("bob@smime.example"),
            certificates: vec![Arc::clone(&found.certificate)],
            intermediates: Vec::new(),
            capabilities: None,
            signed_at: None,
        };
        stores.learn(&harvest).await.unwrap();
    }
    let bob = owner("bob@smime.example");
    assert_eq!(stores.administration().public_keys(Some(&bob)).await.unwrap().len(), 16);
}
