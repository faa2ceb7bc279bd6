//! The decision table of REQUIREMENTS §3, row by row.

use bytes::Bytes;
use rcgen::KeyUsagePurpose;

use super::*;
use crate::cms::{self, ContentCipher, Signing};
use crate::encrypt::{self, Chosen};
use crate::keys::{LookupError, OwnKey};
use crate::policy::Rule;
use crate::refusal::Reply;
use crate::sign;
use crate::testing::{Authority, NOW, Person, context, envelope, joined, keys};

mod behind_key;
mod efail;
mod limits;
mod sender;
mod shown;
mod transport;

const PAYLOAD: &[u8] = b"Content-Type: text/plain\r\n\r\nThe quick brown fox.\r\n";
const FROM_ALICE: &str =
    "From: Alice <alice@nec.example>\r\nTo: bob@abc.example\r\nSubject: plans\r\n";

struct World {
    authority: Authority,
    alice: Person,
    bob: Person,
    carol: Person,
}

#[derive(Debug)]
struct Outcome {
    result: Result<Done, Refusal>,
    report: Report,
}

impl Outcome {
    fn reply(&self) -> String {
        self.result
            .as_ref()
            .map_or_else(|refusal| Reply::from(refusal).to_string(), |_| "250".to_owned())
    }

    fn message(&self, parcel: usize) -> String {
        let done = self.result.as_ref().unwrap();
        String::from_utf8_lossy(&joined(&done.parcels[parcel].message)).into_owned()
    }
}

/// A row of the table: reply, what enters the LAN, verdict, reason.
#[track_caller]
fn row(
    outcome: &Outcome,
    reply: &str,
    delivered: Delivered,
    verdict: Verdict,
    reason: Option<Reason>,
) {
    let got = outcome.reply();
    assert!(got.starts_with(reply), "{got}, {:?}", outcome.report);
    let seen = (outcome.report.delivered, outcome.report.verdict, outcome.report.reason);
    assert_eq!(seen, (delivered, verdict, reason));
}

#[track_caller]
fn refused(outcome: &Outcome) {
    assert_eq!(outcome.reply(), "550 5.7.7 message integrity failure: refused");
    assert_eq!(outcome.report.delivered, Delivered::Nothing);
}

impl World {
    fn new() -> Self {
        let authority = Authority::new("Test Authority");
        let person = |address| Person::new(address, &authority);
        Self {
            alice: person("alice@nec.example"),
            bob: person("bob@abc.example"),
            carol: person("carol@abc.example"),
            authority,
        }
    }

    fn take(&self, mail: &Bytes) -> Outcome {
        self.take_with(Decision::default(), mail, &["bob@abc.example"])
    }

    fn take_with(&self, decision: Decision, mail: &Bytes, to: &[&str]) -> Outcome {
        self.take_keys(decision, mail, to, &keys(&[&self.bob, &self.carol], &[]))
    }

    fn take_keys(&self, decision: Decision, mail: &Bytes, to: &[&str], keys: &Keys) -> Outcome {
        let context = context("abc.example", &self.authority, decision);
        run(context, mail, to, keys)
    }

    fn signed(&self, payload: &[u8], key: &OwnKey) -> Vec<Bytes> {
        sign::smime::sign(&[Bytes::copy_from_slice(payload)], key, None, NOW).unwrap().entity
    }

    /// As one object, content and signature (RFC 8551 §3.5.2).
    fn opaque(&self, payload: &[u8], key: &OwnKey) -> Vec<Bytes> {
        let scheme = cms::default_scheme(&key.certificate).unwrap();
        let signing = Signing { key, scheme, encryption_certificate: None, signed_at: NOW };
        let detached = cms::sign_detached(&signing, &[payload]).unwrap();
        let whole = cms::splicing::with_content(&detached, payload).unwrap();
        vec![mime::write::pkcs7_mime(&[], "signed-data", whole)]
    }

    fn sealed(&self, entity: &[Bytes], cipher: ContentCipher, to: &Person) -> Vec<Bytes> {
        encrypt::smime::encrypt(entity, cipher, &[&chosen(to)]).unwrap()
    }
}

fn run(context: Context, mail: &Bytes, to: &[&str], keys: &Keys) -> Outcome {
    let received = b"Received: here\r\n".to_vec();
    let envelope = envelope("alice@nec.example", to);
    let message = Message::new(mail.clone());
    finished(Inbound::new(context, "ID".to_owned(), envelope, message, received), keys)
}

fn finished(mut inbound: Inbound, keys: &Keys) -> Outcome {
    loop {
        match inbound.step(keys) {
            Step::Want(queries) => assert!(!queries.is_empty()),
            Step::Done(done) => {
                let report = done.report.clone();
                return Outcome { result: Ok(*done), report };
            }
            Step::Refused(refused) => return Outcome { result: Err(refused.0), report: refused.1 },
        }
    }
}

fn chosen(person: &Person) -> Chosen {
    encrypt::own_certificate(&person.decryption.certificate, NOW).unwrap()
}

fn mail(header: &str, entity: &[Bytes]) -> Bytes {
    let mut whole = vec![Bytes::from(format!("{header}MIME-Version: 1.0\r\n"))];
    whole.extend_from_slice(entity);
    joined(&whole)
}

/// One letter of a word changed.
fn altered(mail: &Bytes, word: &str) -> Bytes {
    let at = memchr::memmem::find(mail, word.as_bytes()).unwrap();
    let mut bytes = mail.to_vec();
    bytes[at] ^= 1;
    Bytes::from(bytes)
}

/// A bit of the CMS object changed, counted from the end.
fn altered_cms(whole: &Bytes, from_end: usize) -> Bytes {
    let entity = Entity::parse(whole.clone()).unwrap();
    let mut der = mime::decode_body(&entity).unwrap().to_vec();
    let at = der.len() - 1 - from_end;
    der[at] ^= 1;
    let smime = mime::write::pkcs7_mime(&[], "enveloped-data", der);
    mail(FROM_ALICE, &[smime])
}

const GCM: ContentCipher = ContentCipher::Aes256Gcm;
const CBC: ContentCipher = ContentCipher::Aes256Cbc;

#[test]
fn valid_trusted_and_from_matches() {
    let world = World::new();
    let mail = mail(FROM_ALICE, &world.signed(PAYLOAD, &world.alice.signing));
    let outcome = world.take(&mail);
    row(&outcome, "250", Delivered::AsReceived, Verdict::Pass, None);
    let message = outcome.message(0);
    assert!(
        message.starts_with("Authentication-Results: gate.abc.example;\r\n\tsmime=pass"),
        "{message}"
    );
    assert!(
        message.ends_with(std::str::from_utf8(&Message::new(mail).body()).unwrap()),
        "body untouched (D24)"
    );
    let done = outcome.result.unwrap();
    assert_eq!(done.harvest.unwrap().address, world.alice.address);
}

#[test]
fn valid_and_untrusted() {
    let world = World::new();
    let stranger = Person::new("alice@nec.example", &Authority::new("Unknown Authority"));
    let outcome = world.take(&mail(FROM_ALICE, &world.signed(PAYLOAD, &stranger.signing)));
    row(&outcome, "250", Delivered::AsReceived, Verdict::Policy, Some(Reason::Untrusted));
    assert!(outcome.result.unwrap().harvest.is_none(), "D2: not harvested");
}

#[test]
fn by_a_doubtful_clock_an_expired_signer_is_not_judged() {
    let world = World::new();
    let usage = KeyUsagePurpose::DigitalSignature;
    let old = world.authority.key_valid("alice@nec.example", usage, (2024, 2025));
    let mail = mail(FROM_ALICE, &world.signed(PAYLOAD, &old));
    let take = |expect_signed, clock_is_doubtful| {
        let decision = Decision { expect_signed, ..Decision::default() };
        let context = context("abc.example", &world.authority, decision);
        let keys = keys(&[&world.bob, &world.carol], &[]);
        run(Context { clock_is_doubtful, ..context }, &mail, &["bob@abc.example"], &keys)
    };
    let row = |outcome, verdict, reason| {
        row(&outcome, "250", Delivered::AsReceived, verdict, Some(reason));
    };
    row(take(false, false), Verdict::Policy, Reason::Expired);
    row(take(false, true), Verdict::TempError, Reason::ClockDoubtful);
    refused(&take(true, false));
    assert_eq!(take(true, true).result.unwrap_err(), Refusal::KeysUnavailable);
}

#[test]
fn an_imported_certificate_is_trusted_without_a_path() {
    let world = World::new();
    let stranger = Person::new("alice@nec.example", &Authority::new("Unknown Authority"));
    let mut keys = keys(&[&world.bob], &[(&stranger, true)]);
    for answer in keys.public.values_mut() {
        let key = &mut answer.as_mut().unwrap()[0];
        key.certificate = std::sync::Arc::clone(&stranger.signing.certificate);
        key.pinned = true;
    }
    let mail = mail(FROM_ALICE, &world.signed(PAYLOAD, &stranger.signing));
    let outcome = world.take_keys(Decision::default(), &mail, &["bob@abc.example"], &keys);
    row(&outcome, "250", Delivered::AsReceived, Verdict::Pass, None);
}

#[test]
fn valid_and_signed_by_someone_else() {
    let world = World::new();
    for header in [
        "From: mallory@nec.example\r\n",
        "From: mallory@nec.example\r\nSender: alice@nec.example\r\n",
        "From: alice@nec.example, mallory@nec.example\r\n",
        "",
    ] {
        let outcome = world.take(&mail(header, &world.signed(PAYLOAD, &world.alice.signing)));
        row(&outcome, "250", Delivered::AsReceived, Verdict::Policy, Some(Reason::SignerMismatch));
    }
}

#[test]
fn falsified_at_the_root() {
    let world = World::new();
    let mail = altered(&mail(FROM_ALICE, &world.signed(PAYLOAD, &world.alice.signing)), "quick");
    let outcome = world.take(&mail);
    refused(&outcome);
    assert_eq!(outcome.report.reason, Some(Reason::Falsified));
    let listed = joined(&[Bytes::from_static(b"List-Id: <x.example>\r\n"), mail.clone()]);
    refused(&world.take(&listed));
    let tag = Decision { falsified: Falsified::Tag, ..Decision::default() };
    let outcome = world.take_with(tag, &mail, &["bob@abc.example"]);
    row(&outcome, "250", Delivered::AsReceived, Verdict::Fail, Some(Reason::Falsified));
}

#[test]
fn opened_when_whole() {
    let world = World::new();
    for cipher in [GCM, CBC] {
        let signed = world.signed(PAYLOAD, &world.alice.signing);
        let outcome = world.take(&mail(FROM_ALICE, &world.sealed(&signed, cipher, &world.bob)));
        row(&outcome, "250", Delivered::Plain, Verdict::Pass, None);
        let message = outcome.message(0);
        assert!(
            message.ends_with(std::str::from_utf8(&Message::new(joined(&signed)).body()).unwrap())
        );
        assert!(
            message.contains("Content-Type: multipart/signed") && !message.contains("pkcs7-mime")
        );
        assert_eq!(message.matches("MIME-Version").count(), 1);
    }
}

#[test]
fn triple_wrapped() {
    let world = World::new();
    let signed = world.signed(PAYLOAD, &world.alice.signing);
    let sealed = joined(&world.sealed(&signed, GCM, &world.bob));
    let mail = mail(FROM_ALICE, &world.signed(&sealed, &world.alice.signing));
    let outcome = world.take(&mail);
    row(&outcome, "250", Delivered::Plain, Verdict::Pass, None);
    assert_eq!(outcome.report.layers.len(), 3);
    refused(&world.take(&altered(&mail, "smime.p7m")));
}

#[test]
fn a_signature_outside_only_says_nothing_about_the_author() {
    let world = World::new();
    let sealed = joined(&world.sealed(&[Bytes::from_static(PAYLOAD)], GCM, &world.bob));
    let outcome = world.take(&mail(FROM_ALICE, &world.signed(&sealed, &world.alice.signing)));
    row(&outcome, "250", Delivered::Plain, Verdict::None, Some(Reason::EncryptedUnsigned));
    let inner = world.signed(PAYLOAD, &world.carol.signing);
    let sealed = joined(&world.sealed(&inner, GCM, &world.bob));
    let outcome = world.take(&mail(FROM_ALICE, &world.signed(&sealed, &world.alice.signing)));
    row(&outcome, "250", Delivered::AsReceived, Verdict::Policy, Some(Reason::SignerMismatch));
}

#[test]
fn falsified_inside_an_authenticated_encryption() {
    let world = World::new();
    let signed = joined(&world.signed(PAYLOAD, &world.alice.signing));
    let sealed = world.sealed(&[altered(&signed, "quick")], GCM, &world.bob);
    refused(&world.take(&mail(FROM_ALICE, &sealed)));
}

#[test]
fn authenticated_encryption_that_does_not_authenticate() {
    let world = World::new();
    let signed = world.signed(PAYLOAD, &world.alice.signing);
    let sealed = mail(FROM_ALICE, &world.sealed(&signed, GCM, &world.bob));
    let plain = "no entity at all".repeat(3);
    let not_mime = world.sealed(&[Bytes::from(plain)], GCM, &world.bob);
    let tag = Decision { falsified: Falsified::Tag, ..Decision::default() };
    for mail in [altered_cms(&sealed, 0), altered_cms(&sealed, 40), mail(FROM_ALICE, &not_mime)] {
        refused(&world.take(&mail));
        refused(&world.take_with(tag, &mail, &["bob@abc.example"]));
    }
}

#[test]
fn unauthenticated_encryption_without_a_valid_signature() {
    let world = World::new();
    let to = &["bob@abc.example"];
    let pass = Decision {
        unauthenticated_encryption: UnauthenticatedEncryption::Pass,
        ..Decision::default()
    };
    let signed = joined(&world.signed(PAYLOAD, &world.alice.signing));
    let unsigned = mail(FROM_ALICE, &world.sealed(&[Bytes::from_static(PAYLOAD)], CBC, &world.bob));
    let falsified = mail(FROM_ALICE, &world.sealed(&[altered(&signed, "quick")], CBC, &world.bob));
    let good = mail(FROM_ALICE, &world.sealed(std::slice::from_ref(&signed), CBC, &world.bob));
    let mut around = signed.to_vec();
    around.extend_from_slice(b"<img src=\"https://x.example/\r\n");
    let epilogue = mail(FROM_ALICE, &world.sealed(&[Bytes::from(around)], CBC, &world.bob));
    refused(&world.take(&unsigned));
    let outcome = world.take_with(pass, &unsigned, to);
    row(&outcome, "250", Delivered::Plain, Verdict::None, Some(Reason::EncryptedUnsigned));
    for mail in [falsified, epilogue, altered_cms(&good, 0), altered_cms(&good, 40)] {
        refused(&world.take(&mail));
        let outcome = world.take_with(pass, &mail, to);
        row(&outcome, "250", Delivered::AsReceived, Verdict::None, Some(Reason::NotDecrypted));
        assert!(!outcome.message(0).contains("quick brown"));
    }
}

#[test]
fn all_failures_behind_a_key_look_alike() {
    let world = World::new();
    let signed = world.signed(PAYLOAD, &world.alice.signing);
    for cipher in [GCM, CBC] {
        let good = mail(FROM_ALICE, &world.sealed(&signed, cipher, &world.bob));
        let entity = Entity::parse(good.clone()).unwrap();
        let length = mime::decode_body(&entity).unwrap().len();
        let replies: HashSet<String> = (0..length / 2)
            .step_by(7)
            .map(|from_end| world.take(&altered_cms(&good, from_end)).reply())
            .collect();
        let expected = "550 5.7.7 message integrity failure: refused".to_owned();
        assert_eq!(replies, HashSet::from([expected]));
    }
}

#[test]
fn decrypted_and_signed_by_someone_else_is_withheld() {
    let world = World::new();
    let signed = world.signed(PAYLOAD, &world.carol.signing);
    let mail = mail(FROM_ALICE, &world.sealed(&signed, GCM, &world.bob));
    let outcome = world.take(&mail);
    row(&outcome, "250", Delivered::AsReceived, Verdict::Policy, Some(Reason::SignerMismatch));
    assert!(!outcome.message(0).contains("quick brown"));
    let tag = Decision { signer_mismatch: SignerMismatch::Tag, ..Decision::default() };
    let outcome = world.take_with(tag, &mail, &["bob@abc.example"]);
    row(&outcome, "250", Delivered::Plain, Verdict::Policy, Some(Reason::SignerMismatch));
}

#[test]
fn not_encrypted_to_us() {
    let world = World::new();
    let stranger = Person::new("dave@abc.example", &world.authority);
    let signed = world.signed(PAYLOAD, &world.alice.signing);
    let mail = mail(FROM_ALICE, &world.sealed(&signed, GCM, &stranger));
    let outcome = world.take(&mail);
    row(&outcome, "250", Delivered::AsReceived, Verdict::None, Some(Reason::NoKey));
    assert!(outcome.message(0).ends_with(std::str::from_utf8(&Message::new(mail).body()).unwrap()));
}

#[test]
fn a_key_opens_only_for_its_owner() {
    let world = World::new();
    let signed = world.signed(PAYLOAD, &world.alice.signing);
    let mail = mail(FROM_ALICE, &world.sealed(&signed, GCM, &world.bob));
    let outcome = world.take_with(Decision::default(), &mail, &["carol@abc.example"]);
    row(&outcome, "250", Delivered::AsReceived, Verdict::None, Some(Reason::NoKey));
    let both = &["carol@abc.example", "bob@abc.example"];
    let outcome = world.take_with(Decision::default(), &mail, both);
    row(&outcome, "250", Delivered::Plain, Verdict::Pass, None);
    let parcels = &outcome.result.as_ref().unwrap().parcels;
    assert_eq!((&parcels[0].recipients, &parcels[1].recipients), (&vec![1], &vec![0]));
    assert!(
        outcome.message(0).contains("quick brown") && !outcome.message(1).contains("quick brown")
    );
    assert!(!outcome.message(1).contains("smime=pass"));
}

#[test]
fn a_store_that_is_away_defers_what_needs_it_only() {
    let world = World::new();
    let away = |query: KeyQuery| (query, Err(LookupError("away".to_owned())));
    let mut keys = Keys::default();
    keys.own.extend([away(KeyQuery::Decryption(world.bob.address.clone()))]);
    keys.public.insert(world.alice.address.clone(), Err(LookupError("away".to_owned())));
    let to = &["bob@abc.example"];
    let signed = world.signed(PAYLOAD, &world.alice.signing);
    let sealed = mail(FROM_ALICE, &world.sealed(&signed, GCM, &world.bob));
    let outcome = world.take_keys(Decision::default(), &sealed, to, &keys);
    assert!(outcome.reply().starts_with("451 4.7.5"));
    let outcome = world.take_keys(Decision::default(), &mail(FROM_ALICE, &signed), to, &keys);
    row(&outcome, "250", Delivered::AsReceived, Verdict::Pass, None);
}

#[test]
fn expired_signers() {
    let world = World::new();
    let usage = KeyUsagePurpose::DigitalSignature;
    let old = world.authority.key_valid("alice@nec.example", usage, (2024, 2025));
    let outcome = world.take(&mail(FROM_ALICE, &world.signed(PAYLOAD, &old)));
    row(&outcome, "250", Delivered::AsReceived, Verdict::Policy, Some(Reason::Expired));
}

#[test]
fn unsigned_mail_passes_unless_a_signature_is_expected() {
    let world = World::new();
    let plain = mail(FROM_ALICE, &[Bytes::from_static(PAYLOAD)]);
    let outcome = world.take(&plain);
    row(&outcome, "250", Delivered::AsReceived, Verdict::None, None);
    let expect = Decision { expect_signed: true, ..Decision::default() };
    let outcome = world.take_with(expect, &plain, &["bob@abc.example"]);
    refused(&outcome);
    assert_eq!(outcome.report.reason, Some(Reason::ExpectSigned));
}

#[test]
fn an_expected_signature_cannot_be_escaped_by_another_envelope() {
    let world = World::new();
    let mut context = context("abc.example", &world.authority, Decision::default());
    let mut policy = (*context.policy).clone();
    policy.rules.push(Rule {
        from: vec![crate::policy::Pattern::parse("*@nec.example").unwrap()],
        to: Vec::new(),
        overrides: crate::policy::Overrides { expect_signed: Some(true), ..Default::default() },
    });
    context.policy = std::sync::Arc::new(policy);
    let received = Vec::new();
    let envelope = envelope("mallory@elsewhere.example", &["bob@abc.example"]);
    let message = Message::new(mail(FROM_ALICE, &[Bytes::from_static(PAYLOAD)]));
    let mut inbound = Inbound::new(context, "ID".to_owned(), envelope, message, received);
    assert!(matches!(inbound.step(&Keys::default()), Step::Refused(_)));
}

#[test]
fn malformed_cms_at_the_root_is_falsified() {
    let world = World::new();
    for der in [&b"\x30\x03\x02\x01"[..], b"", b"no CMS"] {
        let smime = mime::write::pkcs7_mime(&[], "signed-data", der.to_vec());
        refused(&world.take(&mail(FROM_ALICE, &[smime])));
    }
    let garbage =
        "Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!!\r\n";
    refused(&world.take(&mail(FROM_ALICE, &[Bytes::from(garbage)])));
}

#[test]
fn cms_of_an_unsupported_kind_is_neutral() {
    let world = World::new();
    // ContentInfo { digestedData }, RFC 5652 §7.
    let der = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x05\xa0\x00";
    let smime = mime::write::pkcs7_mime(&[], "digested-data", der.to_vec());
    let outcome = world.take(&mail(FROM_ALICE, &[smime]));
    row(&outcome, "250", Delivered::AsReceived, Verdict::Neutral, Some(Reason::Unsupported));
}

#[test]
fn what_is_not_at_the_root_is_not_touched() {
    let world = World::new();
    let sealed =
        joined(&world.sealed(&world.signed(PAYLOAD, &world.alice.signing), GCM, &world.bob));
    let mut body = b"Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\n".to_vec();
    body.extend_from_slice(&sealed);
    body.extend_from_slice(b"\r\n--b--\r\n");
    let outcome = world.take(&mail(FROM_ALICE, &[Bytes::from(body)]));
    row(&outcome, "250", Delivered::AsReceived, Verdict::None, None);
    assert!(!outcome.message(0).contains("quick brown"));
}

#[test]
fn structural_violations() {
    let world = World::new();
    for twice in
        ["From: a@nec.example\r\n", "Content-Type: text/html\r\nContent-Type: text/html\r\n"]
    {
        let outcome =
            world.take(&mail(&format!("{FROM_ALICE}{twice}"), &[Bytes::from_static(PAYLOAD)]));
        assert!(outcome.reply().starts_with("550 5.6.0"), "{}", outcome.reply());
    }
}

#[test]
fn what_looks_like_ours_is_erased() {
    let world = World::new();
    let header = format!(
        "X-SEALGATE-Verdict: pass\r\nAuthentication-Results: (x) Gate.ABC.example; smime=pass\r\n\
         Authentication-Results: mx.elsewhere.example; spf=pass\r\n{FROM_ALICE}"
    );
    let inner =
        b"X-Sealgate-Verdict: pass\r\nSubject: forged\r\nContent-Type: text/plain\r\n\r\nfox\r\n";
    let sealed = world.sealed(&[Bytes::from_static(inner)], GCM, &world.bob);
    for (entity, verdict) in [(vec![Bytes::from_static(PAYLOAD)], "none"), (sealed, "none")] {
        let message = world.take(&mail(&header, &entity)).message(0);
        assert!(!message.contains("smime=pass") && !message.contains("forged"), "{message}");
        assert!(message.contains("spf=pass"));
        assert_eq!(message.to_lowercase().matches("x-sealgate-verdict").count(), 1);
        assert!(message.contains(&format!("X-Sealgate-Verdict: {verdict}")));
    }
}

#[test]
fn more_layers_than_the_limit_are_not_judged() {
    let world = World::new();
    let mut entity = vec![Bytes::from_static(PAYLOAD)];
    for _ in 0..5 {
        entity = world.signed(&joined(&entity), &world.alice.signing);
    }
    let outcome = world.take(&mail(FROM_ALICE, &entity));
    row(&outcome, "250", Delivered::AsReceived, Verdict::Neutral, Some(Reason::OverLimit));
}

#[test]
fn a_domain_signs_for_its_mailboxes() {
    let world = World::new();
    let sign = KeyUsagePurpose::DigitalSignature;
    let signed_by = |authority: &Authority, address: &str, from: &str, sealed: bool| {
        let mut entity = world.signed(PAYLOAD, &authority.key(address, sign));
        if sealed {
            entity = world.sealed(&entity, GCM, &world.bob);
        }
        world.take(&mail(&format!("From: {from}\r\nTo: bob@abc.example\r\n"), &entity))
    };
    let domain = "domain-signing-authority@nec.example";
    for from in ["alice@nec.example", "alice@lab.nec.example"] {
        let outcome = signed_by(&world.authority, domain, from, false);
        row(&outcome, "250", Delivered::AsReceived, Verdict::Pass, None);
        let Layer::Signed { signer: Some(signer), .. } = &outcome.report.layers[0] else {
            panic!("{:?}", outcome.report.layers)
        };
        assert_eq!(signer.address, domain);
        assert!(outcome.message(0).contains(domain), "{}", outcome.message(0));
        assert!(outcome.result.unwrap().harvest.is_none(), "it is not the author's key");
        let outcome = signed_by(&world.authority, domain, from, true);
        assert_eq!((outcome.report.verdict, outcome.report.reason), (Verdict::Pass, None));
    }
    let mismatch = Some(Reason::SignerMismatch);
    for (address, from) in [
        ("domain-signing-authority@lab.nec.example", "alice@nec.example"),
        (domain, "alice@evilnec.example"),
        ("domain-signing-authority@example", "alice@nec.example"),
        ("domain-confidentiality-authority@nec.example", "alice@nec.example"),
    ] {
        let outcome = signed_by(&world.authority, address, from, false);
        row(&outcome, "250", Delivered::AsReceived, Verdict::Policy, mismatch);
    }
    let stranger = Authority::new("Unknown Authority");
    let outcome = signed_by(&stranger, domain, "alice@nec.example", false);
    row(&outcome, "250", Delivered::AsReceived, Verdict::Policy, Some(Reason::Untrusted));
}

/// A message that was encrypted with CBC, wrapped so often that the encryption is the last layer allowed, must not
/// tell good padding from bad.
#[test]
fn the_layer_limit_is_no_padding_oracle() {
    let world = World::new();
    let ambiguous = b"Content-Type: multipart/signed\r\n\r\nx\r\n";
    let good = world.sealed(&[Bytes::from_static(ambiguous)], CBC, &world.bob);
    let bad = {
        let whole = mail("", &good);
        let entity = Entity::parse(whole).unwrap();
        let mut der = mime::decode_body(&entity).unwrap().to_vec();
        *der.last_mut().unwrap() ^= 1;
        vec![mime::write::pkcs7_mime(&[], "enveloped-data", der)]
    };
    let outcomes: Vec<Outcome> = [good, bad]
        .into_iter()
        .map(|mut entity| {
            for _ in 0..3 {
                entity = world.signed(&joined(&entity), &world.alice.signing);
            }
            world.take(&mail(FROM_ALICE, &entity))
        })
        .collect();
    outcomes.iter().for_each(refused);
}

/// What somebody's key showed is not for the others, wherever peeling ends.
#[test]
fn the_layer_limit_tells_nobody_who_signed_in_anothers_encryption() {
    let world = World::new();
    let mut entity = world.signed(PAYLOAD, &world.alice.signing);
    entity = world.signed(&joined(&entity), &world.alice.signing);
    entity = world.sealed(&entity, GCM, &world.bob);
    for _ in 0..2 {
        entity = world.signed(&joined(&entity), &world.carol.signing);
    }
    let to = ["bob@abc.example", "dave@abc.example"];
    let outcome = world.take_with(Decision::default(), &mail(FROM_ALICE, &entity), &to);
    assert_eq!(outcome.report.reason, Some(Reason::OverLimit));
    let parcels = &outcome.result.as_ref().unwrap().parcels;
    let of = |index: usize| parcels.iter().position(|one| one.recipients == [index]).unwrap();
    let shows = |index: usize| outcome.message(of(index)).contains("signer=\"alice@nec.example\"");
    assert!(shows(0) && !shows(1), "{}", outcome.message(of(1)));
}

#[test]
fn a_line_that_is_no_field_costs_the_verdict() {
    let world = World::new();
    let header = format!("{FROM_ALICE}Pay 10000 to account 77\r\n");
    let outcome = world.take(&mail(&header, &world.signed(PAYLOAD, &world.alice.signing)));
    row(&outcome, "250", Delivered::AsReceived, Verdict::Neutral, Some(Reason::Ambiguous));
}

#[test]
fn an_expected_signature_cannot_be_escaped_by_an_odd_from() {
    let world = World::new();
    let mut context = context("abc.example", &world.authority, Decision::default());
    let mut policy = (*context.policy).clone();
    policy.rules.push(Rule {
        from: vec![crate::policy::Pattern::parse("*@nec.example").unwrap()],
        to: Vec::new(),
        overrides: crate::policy::Overrides { expect_signed: Some(true), ..Default::default() },
    });
    context.policy = std::sync::Arc::new(policy);
    let many = |count: usize| {
        let one = |number| format!("{number}@evil.example");
        (0..count).map(one).collect::<Vec<_>>().join(", ")
    };
    for (from, is_expected) in [
        ("boss@nec.example, x@evil.example", true),
        ("<boss(x)@nec.example>", true),
        ("\"boss@nec.example", true),
        // Whoever a program may take for the author counts, and nobody else.
        ("boss@nec.example <x@evil.example>", true),
        ("x@evil.example <boss@nec.example>", true),
        ("bob@abc.example <x@evil.example>", false),
        (&many(AUTHORS_MAX), false),
        // More than are looked at one by one.
        (&many(AUTHORS_MAX + 1), true),
    ] {
        let whole = mail(&format!("From: {from}\r\n"), &[Bytes::from_static(PAYLOAD)]);
        let message = Message::new(whole);
        let envelope = envelope("x@evil.example", &["bob@abc.example"]);
        let id = "ID".to_owned();
        let mut inbound = Inbound::new(context.clone(), id, envelope, message, Vec::new());
        let is_refused = matches!(inbound.step(&Keys::default()), Step::Refused(_));
        assert_eq!(is_refused, is_expected, "{from}");
    }
}

#[test]
fn a_key_is_not_used_below_a_layer_that_its_owner_cannot_reach() {
    let world = World::new();
    let signed = world.signed(PAYLOAD, &world.alice.signing);
    let inner = world.sealed(&signed, GCM, &world.carol);
    let mail = mail(FROM_ALICE, &world.sealed(&inner, GCM, &world.bob));
    let both = &["bob@abc.example", "carol@abc.example"];
    let outcome = world.take_with(Decision::default(), &mail, both);
    row(&outcome, "250", Delivered::Plain, Verdict::None, Some(Reason::NoKey));
    let done = outcome.result.as_ref().unwrap();
    assert_eq!(done.parcels[0].recipients, [0]);
    for parcel in 0..2 {
        let message = outcome.message(parcel);
        assert!(!message.contains("smime=pass") && !message.contains("quick brown"), "{message}");
    }
}

/// RFC 5321 §7.2: one of them may be a blind recipient.
#[test]
fn a_copy_for_several_does_not_name_whose_key_opened_it() {
    let world = World::new();
    let chosen = [chosen(&world.carol), chosen(&world.bob)];
    let [carol, bob] = &chosen;
    let sealed = encrypt::smime::encrypt(&[Bytes::from_static(PAYLOAD)], GCM, &[carol, bob]);
    let mail = mail(FROM_ALICE, &sealed.unwrap());
    let carols = ["carol@abc.example"];
    assert!(world.take_with(Decision::default(), &mail, &carols).message(0).contains("carol@"));
    let outcome =
        world.take_with(Decision::default(), &mail, &["carol@abc.example", "bob@abc.example"]);
    assert!(outcome.message(0).contains("quick brown"));
    assert!(!outcome.message(0).contains("carol@"), "{}", outcome.message(0));
}

#[test]
fn withheld_mail_tells_others_nothing_of_its_signer() {
    let world = World::new();
    let signed = world.signed(PAYLOAD, &world.carol.signing);
    let mail = mail(FROM_ALICE, &world.sealed(&signed, GCM, &world.bob));
    let both = &["bob@abc.example", "carol@abc.example"];
    let outcome = world.take_with(Decision::default(), &mail, both);
    assert_eq!(outcome.result.as_ref().unwrap().parcels.len(), 2);
    assert!(outcome.message(0).contains("reason=signer-mismatch"));
    assert!(outcome.message(1).contains("reason=no-key"));
    assert!(!outcome.message(1).contains("X-Sealgate-Layer: signed"));
}

#[test]
fn a_store_that_is_away_does_not_settle_what_it_could_answer() {
    let world = World::new();
    let stranger = Person::new("alice@nec.example", &Authority::new("Unknown Authority"));
    let mut keys = keys(&[&world.bob], &[]);
    keys.public.insert(world.alice.address.clone(), Err(LookupError("away".to_owned())));
    let mail = mail(FROM_ALICE, &world.signed(PAYLOAD, &stranger.signing));
    let outcome = world.take_keys(Decision::default(), &mail, &["bob@abc.example"], &keys);
    assert!(outcome.reply().starts_with("451 4.7.5"), "{}", outcome.reply());
}

/// REQUIREMENTS J6: what is not unwrapped cannot be asked about.
#[test]
fn pkcs1_is_not_unwrapped_where_policy_refuses_it() {
    let mut world = World::new();
    world.bob.decryption = world.authority.rsa_key("bob@abc.example");
    let mail = mail(
        FROM_ALICE,
        &world.sealed(&[Bytes::from_static(PAYLOAD)], ContentCipher::Aes256Gcm, &world.bob),
    );
    let refuse = Decision { rsa_pkcs1: RsaPkcs1::Refuse, ..Decision::default() };
    let outcome = world.take(&mail);
    assert_eq!(outcome.report.delivered, Delivered::Plain);
    let outcome = world.take_with(refuse, &mail, &["bob@abc.example"]);
    row(&outcome, "250", Delivered::AsReceived, Verdict::Neutral, Some(Reason::Unsupported));
    let key_named =
        |layer: &Layer| matches!(layer, Layer::Encrypted { key, .. } if !key.is_empty());
    assert!(!outcome.report.layers.iter().any(key_named), "{:?}", outcome.report.layers);
    // Broken or not makes no difference.
    let broken = world.take_with(refuse, &altered_cms(&mail, 30), &["bob@abc.example"]);
    row(&broken, "250", Delivered::AsReceived, Verdict::Neutral, Some(Reason::Unsupported));
}
