//! What failed behind a key is nobody's to know: neither by the reply, nor by the log line, nor by the fields on top
//! (REQUIREMENTS 0.1, J1, J7).

use super::*;

const FROM_MALLORY: &str = "From: mallory@nec.example\r\nTo: bob@abc.example\r\n";
const BOB: &[&str] = &["bob@abc.example"];

fn passing() -> Decision {
    Decision { unauthenticated_encryption: UnauthenticatedEncryption::Pass, ..Decision::default() }
}

/// Mail to bob of which something fails behind his key, each time something else.
fn failures(world: &World, cipher: ContentCipher) -> Vec<Bytes> {
    let seal = |entity: &[Bytes]| mail(FROM_ALICE, &world.sealed(entity, cipher, &world.bob));
    let signed = joined(&world.signed(PAYLOAD, &world.alice.signing));
    let good = seal(std::slice::from_ref(&signed));
    let inside = joined(&world.sealed(std::slice::from_ref(&signed), GCM, &world.bob));
    let broken_inside = altered_cms(&mail(FROM_ALICE, &[inside]), 0);
    let body = memchr::memmem::find(&broken_inside, b"Content-Type").unwrap();
    let around = world.signed(&broken_inside[body..], &world.alice.signing);
    vec![
        altered_cms(&good, 0),
        altered_cms(&good, 40),
        seal(&[Bytes::from("no entity at all".repeat(3))]),
        seal(&[altered(&signed, "quick")]),
        seal(&[mime::write::pkcs7_mime(&[], "signed-data", b"no CMS".to_vec())]),
        // Last: a valid signature directly inside, which nobody can make of somebody else's ciphertext.
        seal(&around),
    ]
}

/// Those that a rule lets pass unopened: all but what is validly signed, and so goes on to be refused (D13, D14).
fn passing_failures(world: &World) -> Vec<Bytes> {
    let mut failures = failures(world, CBC);
    failures.pop();
    failures
}

/// The fields that we put on top.
fn fields(outcome: &Outcome) -> String {
    let message = outcome.message(0);
    message.split("Received: here").next().unwrap().to_owned()
}

/// All reports are the first one, and say nothing of what is inside.
#[track_caller]
fn alike(outcomes: &[Outcome]) {
    let first = &outcomes[0];
    assert_eq!(first.report.reason, Some(Reason::NotDecrypted));
    assert!(matches!(first.report.layers.as_slice(), [Layer::Encrypted { .. }]), "{first:?}");
    for outcome in outcomes {
        assert_eq!((outcome.reply(), &outcome.report), (first.reply(), &first.report));
    }
}

#[test]
fn all_failures_leave_one_report() {
    let world = World::new();
    for cipher in [GCM, CBC] {
        let failures = failures(&world, cipher);
        let outcomes: Vec<Outcome> = failures.iter().map(|mail| world.take(mail)).collect();
        outcomes.iter().for_each(refused);
        alike(&outcomes);
    }
}

#[test]
fn what_passes_unopened_has_one_report_and_the_same_fields() {
    let world = World::new();
    let take = |mail| world.take_with(passing(), mail, BOB);
    let outcomes: Vec<Outcome> = passing_failures(&world).iter().map(take).collect();
    alike(&outcomes);
    for outcome in &outcomes {
        assert_eq!(outcome.report.delivered, Delivered::AsReceived);
        assert_eq!(fields(outcome), fields(&outcomes[0]));
    }
    let expecting = Decision { expect_signed: true, ..passing() };
    let take = |mail| world.take_with(expecting, mail, BOB).report;
    let reports: Vec<Report> = passing_failures(&world).iter().map(take).collect();
    assert!(reports.iter().all(|report| *report == reports[0]), "{reports:?}");
}

/// How many copies there are, and who shares one, shows in the reply where the mail server refuses some: opened or not, they are
/// the same.
#[test]
fn what_passes_is_for_the_same_copies_opened_or_not() {
    let world = World::new();
    let three = &["dave@abc.example", "bob@abc.example", "carol@abc.example"];
    let unsigned = [Bytes::from_static(PAYLOAD)];
    let copies = |mail: &Bytes, opened: bool| {
        let outcome = world.take_with(passing(), mail, three);
        let done = outcome.result.as_ref().unwrap();
        let has_it = |at: usize| outcome.message(at).contains("quick brown");
        assert_eq!(has_it(0), opened, "{}", outcome.message(0));
        assert!((1..done.parcels.len()).all(|at| !has_it(at)));
        assert!(done.parcels.iter().skip(1).all(|_| outcome.message(1).contains("reason=no-key")));
        done.parcels.iter().map(|parcel| parcel.recipients.clone()).collect::<Vec<_>>()
    };
    let good = mail(FROM_ALICE, &world.sealed(&unsigned, CBC, &world.bob));
    assert_eq!(copies(&good, true), [vec![1], vec![0, 2]]);
    assert_eq!(copies(&altered_cms(&good, 0), false), [vec![1], vec![0, 2]]);
    for failure in passing_failures(&world) {
        assert_eq!(copies(&failure, false), [vec![1], vec![0, 2]]);
    }
    // Behind an encryption of the attacker's own, with a name too many in it.
    let both = [chosen(&world.bob), chosen(&world.carol)];
    let both: Vec<&Chosen> = both.iter().collect();
    for (inner, opened) in [(&good, true), (&altered_cms(&good, 0), false)] {
        let at = memchr::memmem::find(inner, b"Content-Type").unwrap();
        let outer = encrypt::smime::encrypt(&[inner.slice(at..)], GCM, &both).unwrap();
        assert_eq!(copies(&mail(FROM_ALICE, &outer), opened), [vec![1], vec![0, 2]]);
    }
    // Named in vain: whose key it is that fails is nobody's to know.
    let der = |entity: &[Bytes]| {
        mime::decode_body(&Entity::parse(mail("", entity)).unwrap()).unwrap().to_vec()
    };
    let own = der(&world.sealed(&unsigned, CBC, &world.carol));
    let captured = der(&world.sealed(&unsigned, CBC, &world.bob));
    let forged = cms::splicing::with_recipients_of(&captured, &own).unwrap();
    let forged = mail(FROM_ALICE, &[mime::write::pkcs7_mime(&[], "enveloped-data", forged)]);
    assert_eq!(copies(&forged, false), [vec![1, 2], vec![0]]);
    assert_eq!(copies(&altered_cms(&forged, 0), false), [vec![1, 2], vec![0]]);
}

/// Everybody can see that a key came in a way that we do not know: that hides nothing, and keeps no mail closed to others.
#[test]
fn who_is_named_in_an_unsupported_way_keeps_nothing_from_the_others() {
    let world = World::new();
    let der = |entity: &[Bytes]| {
        mime::decode_body(&Entity::parse(mail("", entity)).unwrap()).unwrap().to_vec()
    };
    let signed = world.signed(PAYLOAD, &world.alice.signing);
    let mut carols = der(&world.sealed(&signed, CBC, &world.carol));
    // dhSinglePass-stdDH-sha256kdf-scheme (RFC 5753 §7.1.4).
    let at = memchr::memmem::find(&carols, &[0x2b, 0x81, 4, 1, 11, 1]).unwrap();
    carols[at + 5] = 99;
    let bobs = der(&world.sealed(&signed, CBC, &world.bob));
    let both = cms::splicing::with_recipients_of(&bobs, &carols).unwrap();
    let both = mail(FROM_ALICE, &[mime::write::pkcs7_mime(&[], "enveloped-data", both)]);
    for to in [["bob@abc.example", "carol@abc.example"], ["carol@abc.example", "bob@abc.example"]] {
        for decision in [Decision::default(), passing()] {
            let outcome = world.take_with(decision, &both, &to);
            row(&outcome, "250", Delivered::Plain, Verdict::Pass, None);
            let bob = to.iter().position(|one| one.starts_with("bob")).unwrap();
            assert_eq!(outcome.result.unwrap().parcels[0].recipients, [bob]);
        }
    }
}

/// A mail server without 8BITMIME would refuse the one and take the other.
#[test]
fn what_passes_needs_8bitmime_no_more_opened_than_not() {
    let world = World::new();
    let seal = |text: &str| {
        let entity = Bytes::from(text.to_owned());
        mail(FROM_ALICE, &world.sealed(&[entity], CBC, &world.bob))
    };
    let body = "Content-Type: text/plain; charset=utf-8\r\n\r\nf\u{fc}r dich\r\n";
    let outcome = world.take_with(passing(), &seal(body), BOB);
    row(&outcome, "250", Delivered::Plain, Verdict::None, Some(Reason::EncryptedUnsigned));
    assert!(outcome.message(0).contains("f=C3=BCr dich"), "{}", outcome.message(0));
    assert!(!outcome.result.as_ref().unwrap().parcels[0].eight_bit);
    let field = "Content-Type: text/plain; name=\u{fc}\r\n\r\ndich\r\n";
    let outcome = world.take_with(passing(), &seal(field), BOB);
    row(&outcome, "250", Delivered::AsReceived, Verdict::None, Some(Reason::NotDecrypted));

    // A field that is not in what was opened, of a message that asks for SMTPUTF8.
    let head = format!("{FROM_ALICE}Content-Description: \u{fc}\r\n");
    let sealed = world.sealed(&[Bytes::from_static(PAYLOAD)], CBC, &world.bob);
    let outcome = world.take_with(passing(), &mail(&head, &sealed), BOB);
    row(&outcome, "250", Delivered::AsReceived, Verdict::None, Some(Reason::NotDecrypted));

    // The other way round: the ciphertext itself in eight bits.
    let entity = world.sealed(&[Bytes::from_static(PAYLOAD)], CBC, &world.bob);
    let der = mime::decode_body(&Entity::parse(mail("", &entity)).unwrap()).unwrap();
    let head = "Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: binary\r\n\r\n";
    let good = mail(FROM_ALICE, &[Bytes::from(head), der]);
    let mut broken = good.to_vec();
    *broken.last_mut().unwrap() ^= 1;
    for (mail, delivered) in
        [(good, Delivered::Plain), (Bytes::from(broken), Delivered::AsReceived)]
    {
        let outcome = world.take_with(passing(), &mail, BOB);
        assert_eq!(outcome.report.delivered, delivered);
        assert!(outcome.result.unwrap().parcels[0].eight_bit);
    }
}

/// The signature outside and the encryption are public, so they are told.
#[test]
fn of_three_layers_the_two_outer_ones_are_told() {
    let world = World::new();
    let reports: Vec<Report> = failures(&world, CBC)
        .iter()
        .map(|mail| {
            let body = memchr::memmem::find(mail, b"Content-Type").unwrap();
            let outer = world.signed(&mail[body..], &world.alice.signing);
            world.take(&super::mail(FROM_ALICE, &outer)).report
        })
        .collect();
    let [Layer::Signed { .. }, Layer::Encrypted { .. }] = reports[0].layers.as_slice() else {
        panic!("{reports:?}")
    };
    assert!(reports.iter().all(|report| *report == reports[0]), "{reports:?}");
}

/// Whether the store is needed depends on who signed inside: only an encryption that proves its content may tell.
#[test]
fn a_store_that_is_away_is_no_padding_oracle() {
    let world = World::new();
    let stranger = Person::new("alice@nec.example", &Authority::new("Unknown Authority"));
    let mut keys = keys(&[&world.bob], &[]);
    keys.public.insert(world.alice.address.clone(), Err(LookupError("away".to_owned())));
    let seal = |key: &OwnKey, to: &Person| {
        mail(FROM_ALICE, &world.sealed(&world.signed(PAYLOAD, key), CBC, to))
    };
    let mut mails = failures(&world, CBC);
    mails.push(seal(&stranger.signing, &world.bob));
    mails.push(seal(&world.alice.signing, &world.bob));
    mails.push(mail(FROM_ALICE, &world.sealed(&[Bytes::from_static(PAYLOAD)], CBC, &world.bob)));
    for decision in [Decision::default(), passing()] {
        for mail in &mails {
            let outcome = world.take_keys(decision, mail, BOB, &keys);
            assert!(outcome.reply().starts_with("451 4.7.5"), "{outcome:?}");
            assert_eq!(outcome.report.layers, [], "nothing was opened");
        }
    }
    // Neither what is not for us nor what proves itself has to wait.
    let outcome =
        world.take_keys(Decision::default(), &seal(&world.alice.signing, &world.carol), BOB, &keys);
    row(&outcome, "250", Delivered::AsReceived, Verdict::None, Some(Reason::NoKey));
    let sealed = world.sealed(&world.signed(PAYLOAD, &world.alice.signing), GCM, &world.bob);
    let outcome = world.take_keys(Decision::default(), &mail(FROM_ALICE, &sealed), BOB, &keys);
    row(&outcome, "250", Delivered::Plain, Verdict::Pass, None);
}

/// D14: the signature shows that nobody changed it on the way, so it is delivered, and its odd attachment only costs the
/// verdict, as it would behind any other encryption.
#[test]
fn an_odd_attachment_is_no_reason_to_refuse_what_is_validly_signed() {
    let world = World::new();
    let cut = "Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/report; boundary=r\r\n\r\n\
        --r\r\n\r\nThe mail was returned, and its end cut";
    let fields_only =
        "Content-Type: message/rfc822\r\n\r\nFrom: x@abc.example\r\nSubject: returned";
    let spam = "Content-Type: message/rfc822\r\n\r\nFrom: x@abc.example\r\nno field\r\n\r\nbuy\r\n";
    for attachment in [cut, fields_only, spam] {
        let payload = format!(
            "Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n\r\nlook at this quick brown fox\r\n\
             --m\r\n{attachment}\r\n--m--\r\n"
        );
        let signed = joined(&world.signed(payload.as_bytes(), &world.alice.signing));
        for cipher in [GCM, CBC] {
            let sealed = world.sealed(std::slice::from_ref(&signed), cipher, &world.bob);
            let outcome = world.take(&mail(FROM_ALICE, &sealed));
            row(&outcome, "250", Delivered::Plain, Verdict::Neutral, Some(Reason::Ambiguous));
            assert!(outcome.message(0).contains("quick brown fox"));
            // Whose it is decides who may have sent it (D20).
            let captured = mail(FROM_MALLORY, &sealed);
            let outcome = world.take(&captured);
            let mismatch = Some(Reason::SignerMismatch);
            row(&outcome, "250", Delivered::AsReceived, Verdict::Policy, mismatch);
            assert!(!outcome.message(0).contains("quick brown fox"));
            // A signature that does not hold is none, attachment or not.
            let changed = altered(&signed, "quick brown");
            refused(&world.take(&mail(FROM_ALICE, &world.sealed(&[changed], cipher, &world.bob))));
        }
    }
}

/// D20: whatever stands inside, and in whatever form it was signed.
#[test]
fn what_another_signed_is_withheld_though_its_inside_cannot_be_judged() {
    let world = World::new();
    for payload in [
        "Content-Type: text\r\n\r\nquick brown fox\r\n",
        "Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\nMA0GCyqGSIb3DQEJEAEJ\r\n",
    ] {
        let opaque = world.opaque(payload.as_bytes(), &world.alice.signing);
        let clear = world.signed(payload.as_bytes(), &world.alice.signing);
        for (signed, cipher) in [(&opaque, GCM), (&opaque, CBC), (&clear, GCM), (&clear, CBC)] {
            let outcome =
                world.take(&mail(FROM_MALLORY, &world.sealed(signed, cipher, &world.bob)));
            let mismatch = Some(Reason::SignerMismatch);
            row(&outcome, "250", Delivered::AsReceived, Verdict::Policy, mismatch);
            assert!(!outcome.message(0).contains("quick brown fox"));
        }
    }
}
