//! Keys that leave the database for another store, and those that may not.

use super::*;
use crate::secret_key_store::KeyState;
use crate::secret_key_store::embedded;
use crate::secret_key_store::key_management_server::KmipGet;

on_both_databases! {
    a_key_that_is_revoked_while_it_is_moved_stays,
    a_revoked_key_is_not_moved,
    removing_what_stayed_does_not_forget_what_was_moved,
    mail_of_an_owner_whose_keys_were_moved_waits,
}

/// No server at all: nobody is to be asked.
fn kmip() -> KmipConfig {
    KmipConfig {
        servers: Vec::new(),
        tls: None,
        key_name: "{address}".to_owned(),
        certificate_name: "{address}".to_owned(),
        get: KmipGet::Never,
        timeout: Duration::from_secs(1),
        connections: 1,
    }
}

/// Leaves this database's keys of an owner to another store, those that may sign or those that decrypt.
async fn leave(stores: &Stores, owner: &str, purpose: KeyPurpose) {
    let (database, master_key) = (&stores.database, stores.master_key().await.unwrap());
    for id in embedded::ids(database, Some(owner)).await.unwrap() {
        let id = id.as_str();
        let read = move |master_key: Arc<MasterKey>| async move {
            embedded::secret(database, &master_key, id).await
        };
        let key = master_key.used(database, read).await.unwrap();
        if key.purpose == purpose {
            let (to, now) = (SecretKeyStoreKind::Pkcs11, unix_now());
            embedded::leave(database, id, &key, to, now).await.unwrap();
        }
    }
    stores.changed();
}

async fn mail_of_an_owner_whose_keys_were_moved_waits(bed: Bed) {
    let stores = bed.open().await;
    let (alice, bob) = ("alice@nec.example", "bob@nec.example");
    for owner in [alice, bob, "@nec.example"] {
        generate(&stores, owner).await;
    }
    let signing = |owner: &str| KeyQuery::Signing(address(owner));
    let decryption = |owner: &str| KeyQuery::Decryption(address(owner));
    let away = |answer: Result<Vec<OwnKey>, LookupError>| {
        let text = answer.unwrap_err().to_string();
        assert!(text.contains("store = \"pkcs11\""), "{text}");
    };
    leave(&stores, alice, KeyPurpose::Sign).await;
    away(own(&stores, signing(alice)).await);
    assert!(!own(&stores, decryption(alice)).await.unwrap().is_empty(), "not moved yet");
    leave(&stores, alice, KeyPurpose::Encrypt).await;
    away(own(&stores, signing(alice)).await);
    away(own(&stores, decryption(alice)).await);
    for query in [signing(bob), decryption(bob)] {
        assert!(!own(&stores, query).await.unwrap().is_empty(), "another's");
    }
    let told = stores.administration().check_secret_keys().await.unwrap_err().to_string();
    assert!(told.contains(alice) && told.contains("store = \"pkcs11\""), "{told}");
    generate(&stores, alice).await;
    for query in [signing(alice), decryption(alice)] {
        assert!(!own(&stores, query).await.unwrap().is_empty(), "has keys here again");
    }
    assert!(stores.administration().check_secret_keys().await.is_ok());
    // The domain's: what a mailbox signs with itself needs none of it, mail may be encrypted to it.
    for purpose in [KeyPurpose::Sign, KeyPurpose::Encrypt] {
        leave(&stores, "@nec.example", purpose).await;
    }
    assert!(!own(&stores, signing(bob)).await.unwrap().is_empty());
    away(own(&stores, decryption(bob)).await);
    away(own(&stores, signing("carol@nec.example")).await);
    let forgotten = stores.administration().remove_secret_keys(&owner("@nec.example")).await;
    assert_eq!(forgotten, Ok(2));
    assert!(own(&stores, signing("carol@nec.example")).await.unwrap().is_empty());
}

/// No store has a word for it that all of them understand: there it would be a good key again.
async fn a_revoked_key_is_not_moved(bed: Bed) {
    let stores = bed.open().await;
    let alice = "alice@nec.example";
    generate(&stores, alice).await;
    let ids = embedded::ids(&stores.database, Some(alice)).await.unwrap();
    for (id, state) in ids.iter().zip([KeyState::Compromised, KeyState::Deactivated]) {
        assert!(embedded::revoke(&stores.database, id, state).await.unwrap());
    }
    let config = StoresConfig { kmip: Some(kmip()), ..bed.config.clone() };
    stores.reload(&config).await.unwrap();
    for owner in [None, Some(owner(alice))] {
        let moved = |_| panic!("moved");
        let to = SecretKeyStoreKind::Kmip;
        let refused = stores.administration().move_secret_keys(to, owner.as_ref(), moved).await;
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(alice) && text.contains("revoked keys stay here"), "{text}");
    }
    let (bob, to) = (owner("bob@nec.example"), SecretKeyStoreKind::Kmip);
    let refused = stores.administration().move_secret_keys(to, Some(&bob), |_| {}).await;
    assert!(matches!(refused, Err(StoreError::NotFound(_))), "another's: {refused:?}");
}

/// That is what `move` asks for where revoked keys stay behind.
async fn removing_what_stayed_does_not_forget_what_was_moved(bed: Bed) {
    let stores = bed.open().await;
    let alice = "alice@nec.example";
    generate(&stores, alice).await;
    for id in embedded::ids(&stores.database, Some(alice)).await.unwrap() {
        assert!(embedded::revoke(&stores.database, &id, KeyState::Compromised).await.unwrap());
    }
    generate(&stores, alice).await;
    for purpose in [KeyPurpose::Sign, KeyPurpose::Encrypt] {
        leave(&stores, alice, purpose).await;
    }
    assert_eq!(stores.administration().remove_secret_keys(&owner(alice)).await, Ok(2), "revoked");
    let signing = || KeyQuery::Signing(address(alice));
    assert!(own(&stores, signing()).await.is_err(), "hers are elsewhere");
    assert_eq!(stores.administration().remove_secret_keys(&owner(alice)).await, Ok(2), "marks");
    assert!(own(&stores, signing()).await.unwrap().is_empty(), "forgotten on purpose");
}

/// Moving proves each key at the other store, which takes its time; there it would be a good one.
async fn a_key_that_is_revoked_while_it_is_moved_stays(bed: Bed) {
    let stores = bed.open().await;
    let alice = "alice@nec.example";
    generate(&stores, alice).await;
    let (database, master_key) = (&stores.database, stores.master_key().await.unwrap());
    let ids = embedded::ids(database, Some(alice)).await.unwrap();
    for id in &ids {
        let id = id.as_str();
        let read = move |master_key: Arc<MasterKey>| async move {
            embedded::secret(database, &master_key, id).await
        };
        let key = master_key.used(database, read).await.unwrap();
        assert!(embedded::revoke(database, id, KeyState::Compromised).await.unwrap());
        // After it was taken in there, and before.
        let (to, now) = (SecretKeyStoreKind::Pkcs11, unix_now());
        let late = embedded::leave(database, id, &key, to, now).await.unwrap_err().to_string();
        assert!(late.contains(alice) && late.contains("remove it there"), "{late}");
        let early = master_key.used(database, read).await.map(|_| ()).unwrap_err().to_string();
        assert!(early.contains("stays here"), "{early}");
    }
    assert_eq!(embedded::of_owner(database, alice, 9).await.unwrap().len(), ids.len());
    assert!(embedded::moved::list(database).await.unwrap().is_empty());
}
