use bytes::Bytes;

use super::*;
use crate::cms::{ContentKind, EnvelopedData, content_kind};
use crate::mime::{Cryptographic, cryptographic_layer, decode_body};
use crate::policy::{Content, Order, Overrides, Pattern, Rule};
use crate::refusal::Reply;
use crate::report::Layer;
use crate::testing::{
    Authority, NOW, Person, context, envelope, joined, keys, mails_at_header_limits,
};

mod already;
mod own_keys;
mod returned;
mod room;
mod wish;

const MAIL: &[u8] = b"From: Alice <alice@nec.example>\r\nTo: bob@abc.example\r\nBcc: eve@abc.example\r\n\
    Subject: plans\r\nX-Sealgate-Verdict: pass\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n\
    The quick brown fox.\r\n";

/// Signed where the originator has a key, and not encrypted.
fn sign_only() -> Decision {
    Decision { encrypt: Encrypt::Never, ..Decision::default() }
}

struct World {
    authority: Authority,
    alice: Person,
    bob: Person,
    eve: Person,
}

impl World {
    fn new() -> Self {
        let authority = Authority::new("Test Authority");
        let person = |address| Person::new(address, &authority);
        Self {
            alice: person("alice@nec.example"),
            bob: person("bob@abc.example"),
            eve: person("eve@abc.example"),
            authority,
        }
    }

    fn send(
        &self,
        decision: Decision,
        mail: &[u8],
        to: &[&str],
        keys: &Keys,
    ) -> Result<Done, Refusal> {
        self.send_as("alice@nec.example", decision, mail, to, keys)
    }

    fn send_as(
        &self,
        from: &str,
        decision: Decision,
        mail: &[u8],
        to: &[&str],
        keys: &Keys,
    ) -> Result<Done, Refusal> {
        self.send_in(context("nec.example", &self.authority, decision), from, mail, to, keys)
    }

    fn send_in(
        &self,
        context: Context,
        from: &str,
        mail: &[u8],
        to: &[&str],
        keys: &Keys,
    ) -> Result<Done, Refusal> {
        let message = Message::new(Bytes::copy_from_slice(mail));
        let received = b"Received: here\r\n".to_vec();
        let mut outbound =
            Outbound::new(context, "ID".to_owned(), envelope(from, to), message, received);
        loop {
            match outbound.step(keys) {
                Step::Want(queries) => assert!(!queries.is_empty()),
                Step::Done(done) => return Ok(*done),
                Step::Refused(refused) => return Err(refused.0),
            }
        }
    }

    fn keys(&self, gcm: bool) -> Keys {
        keys(&[&self.alice], &[(&self.bob, gcm), (&self.eve, gcm)])
    }

    /// Decrypts the root layer with somebody's key.
    fn open(&self, whole: &Bytes, person: &Person) -> Option<Entity> {
        let entity = Entity::parse(whole.clone()).unwrap();
        let enveloped = EnvelopedData::parse(&decode_body(&entity).unwrap()).unwrap();
        let info = enveloped.recipient_for(&person.decryption.certificate)?;
        let key = &person.decryption;
        let plain = enveloped.open(info, &key.certificate, key.secret.as_ref()).unwrap();
        Some(Entity::parse(Bytes::copy_from_slice(&plain)).unwrap())
    }
}

fn kinds(done: &Done) -> Vec<&'static str> {
    let kind = |layer: &Layer| match layer {
        Layer::Encrypted { .. } => "encrypted",
        Layer::Signed { .. } => "signed",
    };
    done.report.layers.iter().map(kind).collect()
}

fn content(layer: &Layer) -> &str {
    match layer {
        Layer::Encrypted { content, .. } => content,
        Layer::Signed { .. } => "",
    }
}

#[test]
fn plain_mail_leaves_signed_and_encrypted() {
    let world = World::new();
    let done =
        world.send(Decision::default(), MAIL, &["bob@abc.example"], &world.keys(true)).unwrap();
    assert_eq!(done.report.delivered, Delivered::Sealed);
    assert_eq!(kinds(&done), ["encrypted", "signed"]);
    assert_eq!(content(&done.report.layers[0]), "aes-256-gcm");
    let whole = joined(&done.parcels[0].message);
    // None of them can occur in base64 by chance.
    for word in ["brown fox", "X-Sealgate", "Bcc:"] {
        assert!(memchr::memmem::find(&whole, word.as_bytes()).is_none(), "{word} leaves");
    }
    assert!(whole.starts_with(b"Received: here\r\nFrom: Alice"));
    let inner = world.open(&whole, &world.bob).unwrap();
    assert!(matches!(cryptographic_layer(&inner), Cryptographic::ClearSigned(_)));
    assert!(memchr::memmem::find(&inner.body, b"The quick brown fox.\r\n").is_some());
    assert!(world.open(&whole, &world.alice).is_some(), "the originator's copy can be read (B11)");
    assert!(world.open(&whole, &world.eve).is_none());
}

#[test]
fn cbc_for_those_not_known_to_read_gcm_and_never_without_a_signature() {
    let world = World::new();
    let to = &["bob@abc.example"];
    let done = world.send(Decision::default(), MAIL, to, &world.keys(false)).unwrap();
    assert_eq!(content(&done.report.layers[0]), "aes-256-cbc");
    let mut unsigned = world.keys(false);
    unsigned.own.insert(KeyQuery::Signing(world.alice.address.clone()), Ok(Vec::new()));
    let done = world.send(Decision::default(), MAIL, to, &unsigned).unwrap();
    assert_eq!(content(&done.report.layers[0]), "aes-256-gcm");
    let cbc = Decision { content: Content::Aes256Cbc, ..Decision::default() };
    let refusal = world.send(cbc, MAIL, to, &unsigned).unwrap_err();
    assert_eq!(refusal, Refusal::SignatureNeeded(world.bob.address.clone()));
    let outside = Decision { order: Order::EncryptThenSign, ..Decision::default() };
    let done = world.send(outside, MAIL, to, &world.keys(false)).unwrap();
    assert_eq!(kinds(&done), ["signed", "encrypted", "signed"]);
}

/// B12.
#[test]
fn one_recipient_without_a_signature_decides_the_cipher_of_all() {
    let world = World::new();
    let (bob, eve) = ("bob@abc.example", world.eve.address.to_string());
    let unsigned = Rule {
        from: Vec::new(),
        to: vec![Pattern::parse(&eve).unwrap()],
        overrides: Overrides { sign: Some(Sign::Never), ..Overrides::default() },
    };
    let ciphers = |rules: Vec<Rule>| {
        let mut context = context("nec.example", &world.authority, Decision::default());
        let mut policy = (*context.policy).clone();
        policy.rules = rules;
        context.policy = Arc::new(policy);
        let to = [bob, &eve];
        let from = "alice@nec.example";
        let done = world.send_in(context, from, MAIL, &to, &world.keys(false)).unwrap();
        let is_gcm = |person: &Person| {
            let mine = done.parcels.iter().find_map(|parcel| {
                let entity = Entity::parse(joined(&parcel.message)).unwrap();
                let enveloped = EnvelopedData::parse(&decode_body(&entity).unwrap()).unwrap();
                let found = enveloped.recipient_for(&person.decryption.certificate).is_some();
                found.then(|| enveloped.is_authenticated())
            });
            mine.unwrap()
        };
        [is_gcm(&world.bob), is_gcm(&world.eve)]
    };
    assert_eq!(ciphers(Vec::new()), [false, false]);
    assert_eq!(ciphers(vec![unsigned]), [true, true]);
}

#[test]
fn the_three_orders() {
    let world = World::new();
    for (order, expected) in [
        (Order::SignThenEncrypt, &["encrypted", "signed"][..]),
        (Order::Triple, &["signed", "encrypted", "signed"]),
        (Order::EncryptThenSign, &["signed", "encrypted"]),
    ] {
        let decision = Decision { order, ..Decision::default() };
        let done = world.send(decision, MAIL, &["bob@abc.example"], &world.keys(true)).unwrap();
        assert_eq!(kinds(&done), expected);
    }
}

#[test]
fn blind_recipients_have_their_own_copy() {
    let world = World::new();
    let to = &["bob@abc.example", "eve@abc.example"];
    let done = world.send(Decision::default(), MAIL, to, &world.keys(true)).unwrap();
    let recipients: Vec<_> = done.parcels.iter().map(|parcel| parcel.recipients.clone()).collect();
    assert_eq!(recipients, [vec![0], vec![1]]);
    let (named, blind) = (joined(&done.parcels[0].message), joined(&done.parcels[1].message));
    assert!(world.open(&named, &world.eve).is_none());
    assert!(world.open(&blind, &world.eve).is_some());
    assert!(world.open(&blind, &world.bob).is_some());
}

#[test]
fn one_recipient_without_a_key_stops_the_mail_for_all() {
    let world = World::new();
    let mut some = world.keys(true);
    some.public.insert(world.eve.address.clone(), Ok(Vec::new()));
    let to = &["bob@abc.example", "eve@abc.example"];
    let refusal = world.send(Decision::default(), MAIL, to, &some).unwrap_err();
    let reply = Reply::from(&refusal).to_string();
    assert!(reply.starts_with("550 5.7.3 ") && reply.contains("<eve@abc.example>"), "{reply}");
    let prefer = Decision { encrypt: Encrypt::Prefer, ..Decision::default() };
    let done = world.send(prefer, MAIL, to, &some).unwrap();
    let delivered: Vec<_> = done.parcels.iter().map(|parcel| parcel.delivered).collect();
    assert_eq!(delivered, [Delivered::Sealed, Delivered::Signed]);
}

#[test]
fn a_failed_look_up_never_means_plain() {
    let world = World::new();
    for encrypt in [Encrypt::Require, Encrypt::Prefer] {
        let mut failing = world.keys(true);
        failing.public.insert(world.bob.address.clone(), Err(LookupError("away".to_owned())));
        let decision = Decision { encrypt, ..Decision::default() };
        let refusal = world.send(decision, MAIL, &["bob@abc.example"], &failing).unwrap_err();
        assert_eq!(refusal, Refusal::KeysUnavailable);
    }
}

#[test]
fn certificates_that_must_not_be_used_are_not() {
    let world = World::new();
    let usage = rcgen::KeyUsagePurpose::KeyAgreement;
    let foreign = Authority::new("Somebody Else");
    let unusable = [
        world.authority.key_valid("bob@abc.example", usage, (2024, 2025)),
        world.authority.key("mallory@abc.example", usage),
        world.authority.key("bob@abc.example", rcgen::KeyUsagePurpose::DigitalSignature),
        foreign.key("bob@abc.example", usage),
    ];
    for own in unusable {
        let mut keys = world.keys(true);
        let mut public = world.bob.public(true);
        public.certificate = own.certificate;
        keys.public.insert(world.bob.address.clone(), Ok(vec![public]));
        let refusal =
            world.send(Decision::default(), MAIL, &["bob@abc.example"], &keys).unwrap_err();
        assert_eq!(refusal, Refusal::NoEncryptionKey(world.bob.address.clone()));
    }
}

/// Of more than are judged one may be usable: the mail does not go plain for that.
#[test]
fn many_certificates_do_not_hide_the_one_that_is_usable() {
    let world = World::new();
    let foreign = Authority::new("Somebody Else");
    let usage = rcgen::KeyUsagePurpose::KeyAgreement;
    let public = |own: OwnKey| PublicKey { certificate: own.certificate, ..world.bob.public(true) };
    let expired = public(world.authority.key_valid("bob@abc.example", usage, (2024, 2025)));
    let of_another = public(world.authority.key("mallory@abc.example", usage));
    let untrusted = public(foreign.key("bob@abc.example", usage));
    let prefer = Decision { encrypt: Encrypt::Prefer, ..Decision::default() };
    let send = |other: &PublicKey, with_bob: bool| {
        let mut candidates = vec![other.clone(); 40];
        candidates.extend(with_bob.then(|| world.bob.public(true)));
        let mut keys = world.keys(true);
        keys.public.insert(world.bob.address.clone(), Ok(candidates));
        let sent = world.send(prefer, MAIL, &["bob@abc.example"], &keys);
        sent.map(|done| done.report.delivered)
    };
    for other in [expired, of_another] {
        assert_eq!(send(&other, true), Ok(Delivered::Sealed));
        assert_eq!(send(&other, false), Ok(Delivered::Signed));
    }
    assert_eq!(send(&untrusted, true), Err(Refusal::KeysUnavailable));
    // Nor do more authorities than are looked at.
    let authorities = vec![Arc::clone(&foreign.certificate); 65];
    let cut_short = PublicKey { intermediates: authorities, ..untrusted };
    let mut keys = world.keys(true);
    keys.public.insert(world.bob.address.clone(), Ok(vec![cut_short]));
    let sent = world.send(prefer, MAIL, &["bob@abc.example"], &keys);
    assert_eq!(sent.unwrap_err(), Refusal::KeysUnavailable);
}

#[test]
fn a_key_signs_only_for_its_owner() {
    let world = World::new();
    let never = Decision { encrypt: Encrypt::Never, ..Decision::default() };
    let always = Decision { sign: Sign::Always, ..never };
    let to = &["bob@abc.example"];
    let keys = world.keys(true);
    let mail =
        |from: &str| format!("From: {from}\r\nTo: bob@abc.example\r\n\r\nhello\r\n").into_bytes();
    for (path, from) in [
        ("mallory@nec.example", "alice@nec.example"),
        ("alice@nec.example", "mallory@nec.example"),
        ("alice@nec.example", "alice@nec.example, bob@nec.example"),
        ("alice@nec.example", ""),
    ] {
        let done = world.send_as(path, never, &mail(from), to, &keys).unwrap();
        assert_eq!(done.report.delivered, Delivered::Plain, "{path} {from}");
        let refusal = world.send_as(path, always, &mail(from), to, &keys).unwrap_err();
        assert_eq!(refusal, Refusal::OriginatorNotAsserted, "{path} {from}");
    }
    let done = world.send(never, &mail("Alice <ALICE@nec.example>"), to, &keys).unwrap();
    assert_eq!(done.report.delivered, Delivered::Signed);
}

#[test]
fn by_a_doubtful_clock_what_is_outside_its_validity_waits_and_never_goes_plain() {
    let world = World::new();
    let to = &["bob@abc.example"];
    let valid = |person: &Person| person.signing.certificate.not_before();
    let long_before = Timestamp(valid(&world.alice).0 - 86_400);
    let send = |sign, encrypt, now, clock_is_doubtful| {
        let decision = Decision { sign, encrypt, ..Decision::default() };
        let context = context("nec.example", &world.authority, decision);
        let context = Context { now, clock_is_doubtful, ..context };
        world
            .send_in(context, "alice@nec.example", MAIL, to, &world.keys(true))
            .map(|done| done.report.delivered)
    };
    let (bob, alice) = (Address::parse(to[0]).unwrap(), world.alice.address.clone());
    for encrypt in [Encrypt::Prefer, Encrypt::Require] {
        let known = send(Sign::Never, encrypt, long_before, false);
        let refused = Refusal::NoEncryptionKey(bob.clone());
        let usual = if encrypt == Encrypt::Require { Err(refused) } else { Ok(Delivered::Plain) };
        assert_eq!(known, usual);
        let doubted = send(Sign::Never, encrypt, long_before, true);
        assert_eq!(doubted, Err(Refusal::KeysUnavailable));
        assert_eq!(send(Sign::Always, encrypt, NOW, true), Ok(Delivered::Sealed));
    }
    let known = send(Sign::Always, Encrypt::Never, long_before, false);
    assert_eq!(known, Err(Refusal::NoSigningKey(alice)));
    let doubted = send(Sign::Always, Encrypt::Never, long_before, true);
    assert_eq!(doubted, Err(Refusal::KeysUnavailable));
}

#[test]
fn mail_that_its_sender_encrypted_passes() {
    let world = World::new();
    let first =
        world.send(Decision::default(), MAIL, &["bob@abc.example"], &world.keys(true)).unwrap();
    let sealed = joined(&first.parcels[0].message);
    let again =
        world.send(Decision::default(), &sealed, &["bob@abc.example"], &world.keys(true)).unwrap();
    assert_eq!(again.report.delivered, Delivered::AsReceived);
    assert_eq!(again.report.reason, Some(Reason::AlreadyEncrypted));
    let twice = Message::new(joined(&again.parcels[0].message));
    assert_eq!(twice.body(), Message::new(sealed).body());
}

#[test]
fn what_a_user_signed_is_kept_inside_our_encryption() {
    let world = World::new();
    let never = Decision { encrypt: Encrypt::Never, ..Decision::default() };
    let to = &["bob@abc.example"];
    let signed =
        joined(&world.send(never, MAIL, to, &world.keys(true)).unwrap().parcels[0].message);
    let done = world.send(Decision::default(), &signed, to, &world.keys(true)).unwrap();
    assert_eq!(kinds(&done), ["encrypted"], "no second signature");
    let inner = world.open(&joined(&done.parcels[0].message), &world.bob).unwrap();
    assert_eq!(inner.body, Message::new(signed).body());
}

#[test]
fn unprotected_mail_keeps_its_body() {
    let world = World::new();
    let nothing = Decision { encrypt: Encrypt::Never, sign: Sign::Never, ..Decision::default() };
    let mail = b"From: alice@nec.example\r\nBcc: x@y.example\r\n\r\nodd \t\r\nbytes \xff\r\n";
    let done = world.send(nothing, mail, &["bob@abc.example"], &Keys::default()).unwrap();
    let whole = joined(&done.parcels[0].message);
    assert_eq!(
        &whole[..],
        b"Received: here\r\nFrom: alice@nec.example\r\n\r\nodd \t\r\nbytes \xff\r\n"
    );
    assert!(done.parcels[0].eight_bit);
}

#[test]
fn our_broken_dkim_signatures_are_taken_off_others_stay() {
    let world = World::new();
    let mail = b"DKIM-Signature: v=1; d=NEC.example; s=x; b=1\r\nDKIM-Signature: v=1; d=list.example; b=2\r\n\
        DKIM-Signature: v=1; d = \r\n nec.example; s=y; b=3\r\nFrom: alice@nec.example\r\nTo: bob@abc.example\r\n\r\nhello\r\n";
    let done =
        world.send(Decision::default(), mail, &["bob@abc.example"], &world.keys(true)).unwrap();
    let whole = String::from_utf8_lossy(&joined(&done.parcels[0].message)).into_owned();
    assert!(!whole.contains("d=NEC.example") && whole.contains("d=list.example"));
    assert!(!whole.contains("s=y"), "white space around the equals sign");
}

/// B4: an alias of the mail server that leads outside brings back what anybody on the Internet wrote, envelope and From.
#[test]
fn what_came_from_outside_is_signed_for_nobody_inside() {
    let world = World::new();
    let mail = |id: &str, from: &str| {
        Bytes::from(format!("{id}From: {from}\r\nTo: bob@abc.example\r\n\r\nhello\r\n"))
    };
    let (here, outside) = ("", "x-sealgate-id: 1\r\n");
    let send = |id: &str, sign: Sign| {
        let decision = Decision { sign, ..Decision::default() };
        let mail = mail(id, "alice@nec.example");
        world.send(decision, &mail, &["bob@abc.example"], &world.keys(true))
    };
    assert_eq!(kinds(&send(here, Sign::Always).unwrap()), ["encrypted", "signed"]);
    assert_eq!(kinds(&send(outside, Sign::IfKey).unwrap()), ["encrypted"]);
    assert_eq!(send(outside, Sign::Always).unwrap_err(), Refusal::OriginatorNotAsserted);

    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let key = crate::keys::SoftwareKey::from_pkcs8(&key.serialize_der()).unwrap();
    let (kind, domains) = (key.kind(), vec![Domain::parse("nec.example").unwrap()]);
    let signer = Signer::new(Arc::new(key), kind, "s1", domains).unwrap();
    let signs = |id: &str, path: &str, from: &str| {
        let context = context("nec.example", &world.authority, Decision::default());
        let entity = Entity::parse(mail(id, from)).unwrap();
        let envelope = envelope(path, &["bob@abc.example"]);
        let message = Message::new(mail(id, from));
        let outbound = Outbound::new(context, "ID".to_owned(), envelope, message, Vec::new());
        outbound.domain_that_signs(&signer, &entity).is_some()
    };
    let (alice, eve) = ("alice@nec.example", "eve@evil.example");
    // The author's domain; else the envelope's, as of a mailing list here.
    assert!(signs(here, eve, alice) && signs(here, alice, eve) && !signs(here, eve, eve));
    // Forwarded with an envelope of ours (SRS): for that, and for no author of ours.
    assert!(signs(outside, "srs0=x@nec.example", eve));
    assert!(!signs(outside, alice, alice) && !signs(outside, eve, alice));
    assert!(!signs(outside, alice, "alice@nec.example <eve@evil.example>"));
    // DMARC aligns domains of one organisation.
    assert!(!signs(outside, alice, "ceo@hr.nec.example") && !signs(outside, alice, "ceo@example"));
    assert!(signs(outside, alice, "eve@xnec.example") && signs(outside, alice, "eve@nec.test"));
}

#[test]
fn recipients_are_admitted_at_rcpt() {
    let world = World::new();
    let context = context("nec.example", &world.authority, Decision::default());
    let bob = &world.bob.address;
    let known = Ok(vec![world.bob.public(true)]);
    assert_eq!(admit_recipient(&context, None, bob, &known), Ok(()));
    let refusal = admit_recipient(&context, None, bob, &Ok(Vec::new()));
    assert_eq!(refusal, Err(Refusal::NoEncryptionKey(bob.clone())));
    let away = Err(LookupError("away".to_owned()));
    assert_eq!(admit_recipient(&context, None, bob, &away), Err(Refusal::KeysUnavailable));
}

/// Text that somebody wrote above the empty line would stay above the sealed part.
#[test]
fn text_in_the_header_section_does_not_leave_plain() {
    let world = World::new();
    for text in ["Dear Bob, the password is hunter2", " hunter2", "hunter2: yes but", "\u{e4}:"] {
        let mail = format!("{text}\r\nFrom: alice@nec.example\r\n\r\nrest\r\n");
        let keys = world.keys(true);
        let sent = world.send(Decision::default(), mail.as_bytes(), &["bob@abc.example"], &keys);
        match text {
            "hunter2: yes but" => assert!(sent.is_ok(), "a field, whatever it means"),
            _ => assert!(matches!(sent, Err(Refusal::BadMessage(_))), "{text}: {sent:?}"),
        }
    }
}

#[test]
fn two_from_fields_are_refused() {
    let world = World::new();
    let mail = b"From: alice@nec.example\r\nFrom: bob@nec.example\r\n\r\nhello\r\n";
    let refusal =
        world.send(Decision::default(), mail, &["bob@abc.example"], &world.keys(true)).unwrap_err();
    assert!(Reply::from(&refusal).to_string().starts_with("550 5.6.0"));
}

#[test]
fn an_openpgp_signature_is_no_reason_to_leave_ours_away() {
    let world = World::new();
    let mail = b"From: alice@nec.example\r\nTo: bob@abc.example\r\n\r\n-----BEGIN PGP SIGNED MESSAGE-----\r\nx\r\n";
    let done =
        world.send(Decision::default(), mail, &["bob@abc.example"], &world.keys(false)).unwrap();
    assert_eq!(kinds(&done), ["encrypted", "signed"]);
    let inner = world.open(&joined(&done.parcels[0].message), &world.bob).unwrap();
    assert!(inner.header.fields().next().is_some());
}

#[test]
fn blind_recipients_of_mail_encrypted_by_its_sender_travel_apart() {
    let world = World::new();
    let first =
        world.send(Decision::default(), MAIL, &["bob@abc.example"], &world.keys(true)).unwrap();
    let sealed = joined(&first.parcels[0].message);
    let to = &["bob@abc.example", "eve@abc.example"];
    let again = world.send(Decision::default(), &sealed, to, &world.keys(true)).unwrap();
    let recipients: Vec<_> = again.parcels.iter().map(|parcel| parcel.recipients.clone()).collect();
    assert_eq!(recipients, [vec![0], vec![1]]);
}

#[test]
fn an_unanswered_question_is_not_the_answer_no_key() {
    let world = World::new();
    let prefer = Decision { encrypt: Encrypt::Prefer, ..Decision::default() };
    let refusal = world.send(prefer, MAIL, &["bob@abc.example"], &Keys::default()).unwrap_err();
    assert_eq!(refusal, Refusal::KeysUnavailable);
}

#[test]
fn mail_that_needs_no_key_of_ours_flows_while_they_are_away() {
    let world = World::new();
    let mut keys = keys(&[], &[]);
    let alice: Address = "alice@nec.example".parse().unwrap();
    let carol: Address = "carol@abc.example".parse().unwrap();
    keys.public.insert(carol, Ok(Vec::new()));
    keys.own.insert(KeyQuery::Decryption(alice), Err(LookupError("away".to_owned())));
    let decision = Decision { encrypt: Encrypt::Prefer, sign: Sign::Never, ..Decision::default() };
    let done = world.send(decision, MAIL, &["carol@abc.example"], &keys).unwrap();
    assert_eq!(kinds(&done), [""; 0]);

    // Nobody's keys but ours are asked for.
    let context = context("nec.example", &world.authority, Decision::default());
    let envelope = envelope("dave@other.example", &["carol@abc.example"]);
    let message = Message::new(Bytes::from_static(MAIL));
    let mut outbound = Outbound::new(context, "ID".to_owned(), envelope, message, Vec::new());
    let Step::Want(queries) = outbound.step(&Keys::default()) else { panic!("nothing is wanted") };
    assert!(matches!(queries.as_slice(), [KeyQuery::Public(_)]), "{queries:?}");
}

/// REQUIREMENTS K1.
#[test]
fn header_sections_over_the_limits_are_refused() {
    let world = World::new();
    let head = "From: Alice <alice@nec.example>\r\nTo: bob@abc.example\r\n";
    for (mail, is_within) in mails_at_header_limits(head) {
        let sent = world.send(Decision::default(), &mail, &["bob@abc.example"], &world.keys(true));
        match is_within {
            true => assert_eq!(sent.unwrap().report.delivered, Delivered::Sealed),
            false => assert!(sent.unwrap_err().to_string().starts_with("550 5.6.0")),
        }
    }
}
