//! What the whole way of a mail from the Internet is fuzzed with, called by the fuzz target and by the test command.
#![allow(dead_code, unreachable_pub, reason = "the fuzz target calls this from another crate")]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use sealgate_core::address::{Address, Domain};
use sealgate_core::cms::ContentCipher;
use sealgate_core::dkim::Signer;
use sealgate_core::dkim::arc::Chain;
use sealgate_core::encrypt::{Chosen, own_certificate, smime};
use sealgate_core::envelope::{Envelope, MailParameters, Recipient};
use sealgate_core::inbound::Inbound;
use sealgate_core::keys::{Certificate, OwnKey, SoftwareKey, Timestamp};
use sealgate_core::message::Message;
use sealgate_core::mime::{Entity, canonical_line_ends, is_transportable};
use sealgate_core::outbound::Context;
use sealgate_core::policy::{Decision, Policy};
use sealgate_core::report::{Layer, Report, SignatureStatus, Verdict};
use sealgate_core::step::{Done, KeyQuery, Keys, Step};
use sealgate_core::trust::TrustStore;

/// A target's name and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// The target by name, with what it runs.
pub const TARGETS: &[Target] = &[("inbound_message", inbound_message)];

/// A mail to Bob of RFC 9216, whose key we hold, and to Carlos, whose we do not: each is served once, no field but ours says
/// what we found, and nothing passes without a valid signature. The same octets as what a mail encrypts, seen by nobody before,
/// go on with whole line ends.
pub fn inbound_message(data: &[u8]) {
    let received = canonical_line_ends(Bytes::copy_from_slice(data));
    if let Some(done) = take(data, Message::new(received)) {
        check(&done, WORLD.envelope.recipients.len());
    }
    let plaintext = [Bytes::copy_from_slice(data)];
    let Ok(sealed) = smime::encrypt(&plaintext, ContentCipher::Aes256Gcm, &[&WORLD.to_bob]) else {
        return;
    };
    let head = "From: alice@smime.example\r\nTo: bob@smime.example\r\nMIME-Version: 1.0\r\n";
    let mail = [head.as_bytes(), &sealed.concat()].concat();
    let Some(done) = take(data, Message::new(Bytes::from(mail))) else { return };
    check(&done, WORLD.envelope.recipients.len());
    for parcel in done.parcels {
        // NUL and long lines of a signed part stay; no line end of it or of a field is one for some readers only.
        let whole = Bytes::from(parcel.message.concat());
        assert_eq!(canonical_line_ends(whole.clone()), whole);
        assert!(is_transportable(&Message::new(whole).header_section()));
    }
}

/// `None`: refused.
fn take(data: &[u8], message: Message) -> Option<Box<Done>> {
    let world = &*WORLD;
    let chain = [None, Some(Chain::None), Some(Chain::Pass), Some(Chain::Fail)][data.len() % 4];
    let received = b"Received: here\r\n".to_vec();
    let mut inbound = Inbound::new(
        world.context.clone(),
        "ID".to_owned(),
        world.envelope.clone(),
        message,
        received,
    )
    .authenticated(Vec::new(), chain);
    let mut keys = Keys::default();
    for _ in 0..ROUNDS_MAX {
        match inbound.step(&keys) {
            Step::Want(queries) => {
                queries.into_iter().for_each(|query| world.answer(query, &mut keys))
            }
            Step::Refused(refused) => {
                assert_ne!(refused.1.verdict, Verdict::Pass);
                return None;
            }
            Step::Done(done) => return Some(done),
        }
    }
    panic!("it asks again and again");
}

fn check(done: &Done, recipients: usize) {
    let mut served: Vec<usize> =
        done.parcels.iter().flat_map(|parcel| parcel.recipients.clone()).collect();
    served.sort_unstable();
    assert_eq!(served, (0..recipients).collect::<Vec<_>>());
    assert!(done.report.verdict != Verdict::Pass || has_valid_signature(&done.report));
    for parcel in &done.parcels {
        // Beyond the limits of a header section only with the fields that we put on top.
        let Ok(entity) = Entity::parse(Bytes::from(parcel.message.concat())) else { continue };
        assert_eq!(entity.header.count("X-Sealgate-Verdict"), 1);
        let claims = entity
            .header
            .all("Authentication-Results")
            .filter(|field| field.value_unfolded().to_ascii_lowercase().contains(HOSTNAME));
        assert!(claims.count() >= 1);
        let first = entity.header.fields().find(|field| !field.name_starts_with("ARC-"));
        assert!(first.is_some_and(|field| field.is("Authentication-Results")));
    }
}

fn has_valid_signature(report: &Report) -> bool {
    report
        .layers
        .iter()
        .any(|layer| matches!(layer, Layer::Signed { status: SignatureStatus::Valid, .. }))
}

struct World {
    context: Context,
    envelope: Envelope,
    bob: OwnKey,
    to_bob: Chosen,
}

impl World {
    fn answer(&self, query: KeyQuery, keys: &mut Keys) {
        match query {
            KeyQuery::Public(address) => drop(keys.public.insert(address, Ok(Vec::new()))),
            KeyQuery::Decryption(ref address) if Some(address) == self.bob.address.as_ref() => {
                keys.own.insert(query, Ok(vec![self.bob.clone()]));
            }
            other => drop(keys.own.insert(other, Ok(Vec::new()))),
        }
    }
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let domain = Domain::parse("smime.example").expect("a domain");
    let bob = Address::parse("bob@smime.example").expect("an address");
    let carlos = Address::parse("carlos@smime.example").expect("an address");
    let (key, certificate) = (
        key(include_str!("../data/rfc9216/keys/carlos.sign.key")),
        certificate(include_str!("../data/rfc9216/certs/carlos.sign.crt")),
    );
    let signer = Signer::new(Arc::new(key), certificate.key_kind(), "s1", vec![domain.clone()]);
    let anchors = vec![
        certificate_arc(include_str!("../data/rfc9216/certs/rsa-ca-root.crt")),
        certificate_arc(include_str!("../data/rfc9216/certs/ed25519-ca-root.crt")),
    ];
    let bobs = certificate_arc(include_str!("../data/rfc9216/certs/bob.encrypt.crt"));
    World {
        to_bob: own_certificate(&bobs, NOW).expect("a certificate to encrypt to"),
        context: Context {
            policy: Arc::new(Policy {
                domains: vec![domain],
                defaults: Decision::default(),
                rules: Vec::new(),
            }),
            trust: Arc::new(TrustStore::new(anchors, Vec::new(), Vec::new())),
            hostname: HOSTNAME.to_owned(),
            now: NOW,
            clock_is_doubtful: false,
            stamp: NOW,
            dkim: Some(Arc::new(signer.expect("a signer"))),
        },
        envelope: Envelope {
            reverse_path: Some(Address::parse("alice@smime.example").expect("an address")),
            recipients: vec![Recipient::new(bob.clone()), Recipient::new(carlos)],
            parameters: MailParameters::default(),
        },
        bob: OwnKey {
            address: Some(bob),
            certificate: bobs,
            chain: Vec::new(),
            secret: Arc::new(self::key(include_str!("../data/rfc9216/keys/bob.encrypt.key"))),
            is_active: true,
        },
    }
});

fn key(pem: &str) -> SoftwareKey {
    SoftwareKey::from_pkcs8(&der(pem)).expect("a key of RFC 9216")
}

fn certificate(pem: &str) -> Certificate {
    Certificate::from_der(&der(pem)).expect("a certificate of RFC 9216")
}

fn certificate_arc(pem: &str) -> Arc<Certificate> {
    Arc::new(certificate(pem))
}

fn der(pem: &str) -> Vec<u8> {
    let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    base64_simd::STANDARD.decode_to_vec(text).expect("PEM holds base64")
}

const NOW: Timestamp = Timestamp(1_700_000_000);
const HOSTNAME: &str = "gate.smime.example";
/// All keys are asked for in one round.
const ROUNDS_MAX: usize = 3;
