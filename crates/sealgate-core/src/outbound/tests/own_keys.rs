//! Which of our own certificates sign, are encrypted to, and are told to others (REQUIREMENTS B7, B11, B14).

use super::*;
use crate::cms::SignedData;

const BOB: &str = "bob@abc.example";

/// The SignedData of a message that is only signed.
fn signature_of(done: &Done) -> SignedData {
    let entity = Entity::parse(joined(&done.parcels[0].message)).unwrap();
    let Cryptographic::ClearSigned(parts) = cryptographic_layer(&entity) else {
        panic!("it is not signed")
    };
    SignedData::parse(&decode_body(&parts.signature).unwrap()).unwrap()
}

fn context_with_list(world: &World, decision: Decision, revoked: &[&OwnKey]) -> Context {
    let revoked: Vec<_> = revoked.iter().map(|key| &*key.certificate).collect();
    let anchors = vec![Arc::clone(&world.authority.certificate)];
    let list = world.authority.revocation_list(&revoked);
    Context {
        trust: Arc::new(TrustStore::new(anchors, Vec::new(), vec![list])),
        ..context("nec.example", &world.authority, decision)
    }
}

/// RFC 8551 §2.5.3: whoever answers needs it.
/// Not the time of verification, which may be ahead of the clock.
#[test]
fn a_signature_is_stamped_with_the_time_that_is_given_for_that() {
    let world = World::new();
    let keys = world.keys(true);
    let context = context("nec.example", &world.authority, sign_only());
    let stamp = Timestamp(NOW.0 - 1000);
    let from = "alice@nec.example";
    let context = Context { stamp, ..context };
    let done = world.send_in(context, from, MAIL, &["bob@abc.example"], &keys).unwrap();
    assert_eq!(signature_of(&done).signers[0].signing_time(), Some(stamp));
}

#[test]
fn a_signature_tells_the_encryption_certificate_though_nothing_is_encrypted() {
    let world = World::new();
    let done = world.send(sign_only(), MAIL, &[BOB], &world.keys(true)).unwrap();
    let signed = signature_of(&done);
    let told = signed.signers[0].encryption_certificate(signed.certificates.iter());
    let own = world.alice.decryption.certificate.fingerprint();
    assert_eq!(told.map(|certificate| certificate.fingerprint()), Some(own));
}

/// Nothing is encrypted, so nobody needs them.
#[test]
fn while_the_decryption_keys_are_away_mail_is_signed_without_telling_one() {
    let world = World::new();
    let mut keys = world.keys(true);
    let query = KeyQuery::Decryption(world.alice.address.clone());
    keys.own.insert(query, Err(LookupError("away".to_owned())));
    let done = world.send(sign_only(), MAIL, &[BOB], &keys).unwrap();
    assert_eq!(done.report.delivered, Delivered::Signed);
    assert_eq!(signature_of(&done).certificates.len(), 1);
    let sealed = world.send(Decision::default(), MAIL, &[BOB], &keys);
    assert_eq!(sealed.unwrap_err(), Refusal::KeysUnavailable);
}

/// The list may come from an authority that never told us otherwise.
#[test]
fn a_key_that_a_revocation_list_names_signs_no_more() {
    let world = World::new();
    let send = |sign, revoked: &[&OwnKey]| {
        let context = context_with_list(&world, Decision { sign, ..sign_only() }, revoked);
        let sent = world.send_in(context, "alice@nec.example", MAIL, &[BOB], &world.keys(true));
        sent.map(|done| done.report.delivered)
    };
    let alice = &world.alice;
    assert_eq!(send(Sign::Always, &[&world.bob.signing]), Ok(Delivered::Signed));
    let refused = Err(Refusal::NoSigningKey(alice.address.clone()));
    assert_eq!(send(Sign::Always, &[&alice.signing]), refused);
    assert_eq!(send(Sign::IfKey, &[&alice.signing]), Ok(Delivered::Plain));
}

#[test]
fn nothing_is_encrypted_to_an_own_key_that_a_revocation_list_names() {
    let world = World::new();
    let context = context_with_list(&world, Decision::default(), &[&world.alice.decryption]);
    let keys = world.keys(true);
    let done = world.send_in(context, "alice@nec.example", MAIL, &[BOB], &keys).unwrap();
    let whole = joined(&done.parcels[0].message);
    assert!(world.open(&whole, &world.alice).is_none());
    let inner = world.open(&whole, &world.bob).unwrap();
    let Cryptographic::ClearSigned(parts) = cryptographic_layer(&inner) else { panic!("unsigned") };
    let signed = SignedData::parse(&decode_body(&parts.signature).unwrap()).unwrap();
    assert_eq!(signed.certificates.len(), 1, "nor is it told to anybody");
}

/// Whoever has it would read the mail, and the signature would tell others to encrypt to it.
#[test]
fn nothing_is_encrypted_to_an_own_key_that_was_revoked() {
    let mut world = World::new();
    world.alice.decryption.is_active = false;
    let to = ["bob@abc.example"];
    let done = world.send(Decision::default(), MAIL, &to, &world.keys(true)).unwrap();
    let whole = joined(&done.parcels[0].message);
    assert!(world.open(&whole, &world.alice).is_none());
    assert!(world.open(&whole, &world.bob).is_some());
}

#[test]
fn expired_own_keys_do_not_sign() {
    let world = World::new();
    let usage = rcgen::KeyUsagePurpose::DigitalSignature;
    let old = world.authority.key_valid("alice@nec.example", usage, (2024, 2025));
    assert!(sign::choose_key(&[old], &world.alice.address, &TrustStore::default(), NOW).is_none());
}
