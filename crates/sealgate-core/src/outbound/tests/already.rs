//! What a client did already, and what only looks like it (REQUIREMENTS B8, B9, F3).

use super::*;

const BOB: &str = "bob@abc.example";
const LABEL: &str = "Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; boundary=b\r\n\r\n\
    --b\r\n\r\nhello\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\nMAA=\r\n--b--\r\n";
const OPAQUE: &str = "Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n\
    MIIBAAYJKoZIhvcNAQcC\r\n";

/// A message that somebody signed with a key of his own, as his client would.
fn signed_by(world: &World, signer: &Person, content: &str) -> Vec<u8> {
    let from = signer.address.to_string();
    let mail = format!("From: {from}\r\nTo: {BOB}\r\n\r\n{content}\r\n");
    let keys = keys(&[signer], &[]);
    let at_home = context(signer.address.domain().as_str(), &world.authority, sign_only());
    let done = world.send_in(at_home, &from, mail.as_bytes(), &[BOB], &keys).unwrap();
    assert_eq!(done.report.delivered, Delivered::Signed);
    joined(&done.parcels[0].message).to_vec()
}

fn replace(mail: &[u8], old: &str, new: &str) -> Vec<u8> {
    let text = String::from_utf8(mail.to_vec()).unwrap();
    assert!(text.contains(old), "{old} is not there");
    text.replace(old, new).into_bytes()
}

/// CBC tells nobody whether the content was changed on the way (EFAIL): a signature inside must.
#[test]
fn what_only_looks_signed_is_signed() {
    let world = World::new();
    let by_alice = signed_by(&world, &world.alice, "hello");
    let changed = replace(&by_alice, "hello", "hallo");
    let head = "From: alice@nec.example\r\nTo: bob@abc.example\r\n";
    let (label, opaque) = ([head, LABEL].concat(), [head, OPAQUE].concat());
    // In a form in which somebody could add text.
    let loose = replace(&by_alice, "\r\n\r\n--", "\r\n\r\nsome words\r\n--");
    for mail in [label.as_bytes(), opaque.as_bytes(), &changed, &loose] {
        let done = world.send(Decision::default(), mail, &[BOB], &world.keys(false)).unwrap();
        assert_eq!(kinds(&done), ["encrypted", "signed"]);
        assert_eq!(done.report.reason, None);
        let mut without = world.keys(false);
        without.own.insert(KeyQuery::Signing(world.alice.address.clone()), Ok(Vec::new()));
        let done = world.send(Decision::default(), mail, &[BOB], &without).unwrap();
        assert_eq!(content(&done.report.layers[0]), "aes-256-gcm");
        let always = Decision { sign: Sign::Always, ..sign_only() };
        let refusal = world.send(always, mail, &[BOB], &without).unwrap_err();
        assert_eq!(refusal, Refusal::NoSigningKey(world.alice.address.clone()));
    }
}

/// Its signature is another's, or that of a certificate that anybody can make.
#[test]
fn nobody_elses_signature_is_the_authors() {
    let world = World::new();
    let always = Decision { sign: Sign::Always, ..sign_only() };
    let by_bob = replace(&signed_by(&world, &world.bob, "x"), "From: bob@abc", "From: alice@nec");
    let forger = Person::new("alice@nec.example", &Authority::new("Somebody Else"));
    let forged = signed_by(&world, &forger, "x");
    let keys = world.keys(true);
    for mail in [&by_bob, &forged] {
        let refusal =
            world.send_as("mallory@nec.example", always, mail, &[BOB], &keys).unwrap_err();
        assert_eq!(refusal, Refusal::OriginatorNotAsserted);
    }
    let done = world.send(sign_only(), &by_bob, &[BOB], &keys).unwrap();
    assert_eq!(done.report.delivered, Delivered::Signed);
    // A client may have its certificate from wherever; the mail server says who sends.
    let done = world.send(always, &forged, &[BOB], &keys).unwrap();
    assert_eq!(done.report.delivered, Delivered::Plain);
    assert_eq!(done.report.reason, Some(Reason::AlreadySigned));
    // Of what it forwards it says nothing.
    let forwarded = replace(&forged, "From: ", "X-Sealgate-Id: 1\r\nFrom: ");
    let refusal = world.send(always, &forwarded, &[BOB], &keys).unwrap_err();
    assert_eq!(refusal, Refusal::OriginatorNotAsserted);
    // Whom we trust needs nobody's word.
    let by_alice = signed_by(&world, &world.alice, "x");
    let done = world.send_as("list@nec.example", always, &by_alice, &[BOB], &keys).unwrap();
    assert_eq!(done.report.reason, Some(Reason::AlreadySigned));
}

/// Whose a signature is costs time, and the first step is taken on a thread of the network.
#[test]
fn nothing_is_verified_in_the_step_that_asks() {
    let world = World::new();
    let nobodys = context("nec.example", &world.authority, sign_only());
    let first_step = |content: Vec<u8>| {
        let envelope = envelope("list@other.example", &[BOB]);
        let message = Message::new(Bytes::from(content));
        let received = b"Received: here\r\n".to_vec();
        Outbound::new(nobodys.clone(), "ID".to_owned(), envelope, message, received)
            .step(&Keys::default())
    };
    let signed = first_step(signed_by(&world, &world.bob, "x"));
    assert!(matches!(signed, Step::Want(queries) if queries.is_empty()));
    let folded =
        b"Content-Type: multipart/\r\n signed; boundary=b\r\nFrom: bob@abc.example\r\n\r\nx\r\n";
    assert!(matches!(first_step(folded.to_vec()), Step::Want(_)));
    let plain = first_step(b"From: bob@abc.example\r\n\r\nx\r\n".to_vec());
    assert!(matches!(plain, Step::Done(_)));
}
