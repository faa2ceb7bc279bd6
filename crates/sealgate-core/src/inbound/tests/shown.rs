//! What was verified is what is shown, all of it; and whose signature counts where there are several.

use super::*;

/// As `openssl smime -sign` makes it of a text without `-text`: no header section.
const LETTER: &str = "Dear Bob,\r\n\r\nplease pay 100 EUR.\r\n";

#[test]
fn signed_text_that_is_no_entity_is_shown_whole() {
    let world = World::new();
    for text in
        [LETTER, "Reminder: pay 100\r\n\r\nAlice\r\n", "\r\nDear Bob\r\n", "Gr\u{fc}\u{df}e"]
    {
        let opaque = world.opaque(text.as_bytes(), &world.alice.signing);
        for (entity, what) in [
            (opaque.clone(), "signed"),
            (world.sealed(&opaque, GCM, &world.bob), "in GCM"),
            (world.sealed(&opaque, CBC, &world.bob), "in CBC"),
        ] {
            let outcome = world.take(&mail(FROM_ALICE, &entity));
            row(&outcome, "250", Delivered::Plain, Verdict::Pass, None);
            let message = outcome.message(0);
            let body = message.split_once("\r\n\r\n").unwrap().1;
            assert_eq!(body.trim(), text.trim(), "{what}");
            assert_eq!(message.matches("MIME-Version").count(), 1);
        }
    }
}

#[test]
fn signed_content_that_is_neither_entity_nor_text_stays_in_its_signature() {
    let world = World::new();
    let file = b"%PDF-1.4\r\n\0\x01\r\n\r\nthe rest";
    let opaque = world.opaque(file, &world.alice.signing);
    let outcome = world.take(&mail(FROM_ALICE, &opaque));
    row(&outcome, "250", Delivered::AsReceived, Verdict::Pass, None);
    let outcome = world.take(&mail(FROM_ALICE, &world.sealed(&opaque, GCM, &world.bob)));
    row(&outcome, "250", Delivered::Plain, Verdict::Pass, None);
    assert!(outcome.message(0).contains("smime-type=signed-data"), "{}", outcome.message(0));
}

#[test]
fn unsigned_content_loses_nothing_either() {
    let world = World::new();
    let take = |text: &'static str| {
        world.take(&mail(FROM_ALICE, &world.sealed(&[Bytes::from(text)], GCM, &world.bob)))
    };
    for text in ["Reminder: pay 100\r\n\r\nAlice\r\n", "\r\nDear Bob\r\n"] {
        let outcome = take(text);
        let unsigned = Some(Reason::EncryptedUnsigned);
        row(&outcome, "250", Delivered::Plain, Verdict::None, unsigned);
        let message = outcome.message(0);
        assert_eq!(message.split_once("\r\n\r\n").unwrap().1.trim(), text.trim());
    }
    // Fields of an author's own kind over text in whatever charset.
    let latin: &[u8] = b"Subject: x\r\n\r\nGr\xfc\xdfe\r\n";
    let sealed = world.sealed(&[Bytes::from_static(latin)], GCM, &world.bob);
    let outcome = world.take(&mail(FROM_ALICE, &sealed));
    row(&outcome, "250", Delivered::Plain, Verdict::None, Some(Reason::EncryptedUnsigned));
    // D13: what is no header section at all.
    refused(&take(LETTER));
}

#[test]
fn a_detached_signature_alone_is_not_judged() {
    let world = World::new();
    let key = &world.alice.signing;
    let scheme = cms::default_scheme(&key.certificate).unwrap();
    let signing = Signing { key, scheme, encryption_certificate: None, signed_at: NOW };
    let detached = cms::sign_detached(&signing, &[b"a contract"]).unwrap();
    let smime = mime::write::pkcs7_mime(&[], "signed-data", detached);
    let outcome = world.take(&mail(FROM_ALICE, &[smime]));
    row(&outcome, "250", Delivered::AsReceived, Verdict::Neutral, Some(Reason::Unsupported));
}

/// As our own proxy sends what its client signed in another name, or what was changed after that.
#[test]
fn the_author_answers_for_what_is_inside_his_own_signature() {
    let world = World::new();
    let by_carol = joined(&world.signed(PAYLOAD, &world.carol.signing));
    let falsified = altered(&by_carol, "quick");
    let one_part = b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n";
    let odd = Bytes::from_static(one_part);
    let opaque = joined(&world.opaque(PAYLOAD, &world.carol.signing));
    for (inner, layers) in [(&by_carol, 2), (&falsified, 2), (&odd, 1), (&opaque, 2)] {
        let signed = world.signed(inner, &world.alice.signing);
        let outcome = world.take(&mail(FROM_ALICE, &signed));
        assert_eq!((outcome.report.verdict, outcome.report.reason), (Verdict::Pass, None));
        assert_eq!(outcome.report.layers.len(), layers);
        let identifier = "body.smime-identifier=\"alice@nec.example\"";
        assert!(outcome.message(0).contains(identifier), "{}", outcome.message(0));
        for cipher in [GCM, CBC] {
            let outcome = world.take(&mail(FROM_ALICE, &world.sealed(&signed, cipher, &world.bob)));
            row(&outcome, "250", Delivered::Plain, Verdict::Pass, None);
            assert!(outcome.message(0).contains(identifier), "{}", outcome.message(0));
        }
    }
    // Of his domain's signature and his own inside it the verdict is on his own.
    let domain = world
        .authority
        .key("domain-signing-authority@nec.example", KeyUsagePurpose::DigitalSignature);
    let own = joined(&world.signed(PAYLOAD, &world.alice.signing));
    let outcome = world.take(&mail(FROM_ALICE, &world.signed(&own, &domain)));
    row(&outcome, "250", Delivered::AsReceived, Verdict::Pass, None);
    assert!(outcome.message(0).contains("body.smime-identifier=\"alice@nec.example\""));
    assert!(outcome.result.unwrap().harvest.is_some());
    // A domain's may be a gateway's that signs whatever leaves.
    let falsified_own = altered(&own, "quick");
    refused(&world.take(&mail(FROM_ALICE, &world.signed(&falsified_own, &domain))));
    // So may one that was imported for the whole domain. It answers for what cannot be verified inside it.
    let gateway = Person::new("gate@nec.example", &Authority::new("Unknown Authority"));
    let mut keys = keys(&[&world.bob], &[(&world.alice, true)]);
    for answer in keys.public.values_mut() {
        let key = &mut answer.as_mut().unwrap()[0];
        key.certificate = std::sync::Arc::clone(&gateway.signing.certificate);
        (key.pinned, key.of_domain) = (true, true);
    }
    let take = |payload: &[u8]| {
        let mail = mail(FROM_ALICE, &world.signed(payload, &gateway.signing));
        world.take_keys(Decision::default(), &mail, &["bob@abc.example"], &keys)
    };
    let stranger = Person::new("alice@nec.example", &Authority::new("Another Authority"));
    let untrusted = joined(&world.signed(PAYLOAD, &stranger.signing));
    for inner in [&Bytes::from_static(PAYLOAD), &own, &untrusted, &by_carol, &odd, &opaque] {
        let outcome = take(inner);
        assert_eq!((outcome.report.verdict, outcome.report.reason), (Verdict::Pass, None));
    }
    refused(&take(&falsified_own));
    // He does not for what somebody else signed outside of him, nor for what is encrypted in his signature (D19).
    let outcome = world.take(&mail(FROM_ALICE, &world.signed(&falsified, &world.carol.signing)));
    refused(&outcome);
    let sealed = joined(&world.sealed(&[by_carol], GCM, &world.bob));
    let outcome = world.take(&mail(FROM_ALICE, &world.signed(&sealed, &world.alice.signing)));
    row(&outcome, "250", Delivered::AsReceived, Verdict::Policy, Some(Reason::SignerMismatch));
}

#[test]
fn a_field_of_results_that_some_take_for_ours_is_erased() {
    let world = World::new();
    for value in [
        "=?utf-8?Q?gate.abc.example?=; smime=pass",
        "gate.abc.example\u{a0}; smime=pass",
        "gate.abc.example\u{fffd}; smime=pass",
        "gate.abc.example/1; smime=pass",
    ] {
        let header = format!("Authentication-Results: {value}\r\n{FROM_ALICE}");
        let message = world.take(&mail(&header, &[Bytes::from_static(PAYLOAD)])).message(0);
        assert!(!message.contains("smime=pass"), "{message}");
    }
    let header = format!("Authentication-Results: b\u{fc}cher.example 1; spf=pass\r\n{FROM_ALICE}");
    let message = world.take(&mail(&header, &[Bytes::from_static(PAYLOAD)])).message(0);
    assert!(message.contains("spf=pass"), "{message}");
}
