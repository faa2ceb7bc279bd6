//! Keys that a server has no more.

use super::*;

#[test]
fn a_handle_says_that_its_key_is_gone_and_its_successor_is_found() {
    let bed = Bed::new(1);
    let [old, new] = [Person::signing(), Person::signing()];
    bed.servers[0].put_certificate(&old);
    bed.servers[0].put_key(&old, usage::SIGN);
    let store = bed.store(KmipGet::Never);
    let found = store.find(ALICE).unwrap();
    assert!(old.is_signed_by(&found[0]) && !found[0].secret.is_gone());
    bed.servers[0].fake().kept.clear();
    // Identifiers are never given again.
    "new".clone_into(&mut bed.servers[0].fake().before);
    bed.servers[0].put_certificate(&new);
    bed.servers[0].put_key(&new, usage::SIGN);
    for _ in 0..2 {
        let signature = found[0].secret.sign(SHA256, b"text");
        assert!(matches!(signature, Err(KeyError::Unavailable(_))), "{signature:?}");
        assert!(found[0].secret.is_gone());
    }
    let found = store.find(ALICE).unwrap();
    assert!(new.is_signed_by(&found[0]) && !found[0].secret.is_gone());
}

/// Whatever the server says of it, and though it has shown before that it can.
#[test]
fn a_handle_says_that_its_key_was_revoked_and_its_successor_is_found() {
    let bed = Bed::new(1);
    let [old, new] = [Person::signing(), Person::signing()];
    let link = bed.servers[0].put_certificate(&old);
    let id = bed.servers[0].put_key(&old, usage::SIGN);
    bed.servers[0].fake().kept[1].attributes.push(Attribute::CertificateLink(link));
    let store = bed.store(KmipGet::Never);
    let found = store.find(ALICE).unwrap();
    assert!(found[0].secret.sign(SHA256, b"text").is_ok() && !found[0].secret.is_gone());
    bed.servers[0].set_state(&id, State::Deactivated);
    bed.servers[0].put_certificate(&new);
    bed.servers[0].put_key(&new, usage::SIGN);
    let signature = found[0].secret.sign(SHA256, b"text");
    assert!(matches!(signature, Err(KeyError::Unavailable(_))), "{signature:?}");
    assert!(found[0].secret.is_gone());
    let found = store.find(ALICE).unwrap();
    assert!(new.is_signed_by(&found[0]) && !found[0].secret.is_gone());
}
