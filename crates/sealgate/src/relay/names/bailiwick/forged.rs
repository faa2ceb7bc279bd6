//! Forged responses against real signatures: zones signed in memory, somebody on the way who puts his own responses in the
//! place of theirs, and hickory's validator behind what narrows them.
//!
//! `example.` is a zone above others with hashed denials, `victim.example.` a signed one below it, `evil.example.` an unsigned
//! one, which whoever is on the way may say anything of.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::proto::dnssec::crypto::EcdsaSigningKey;
use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DS, NSEC, NSEC3};
use hickory_resolver::proto::dnssec::{
    DigestType, Nsec3HashAlgorithm, Proof, PublicKeyBuf, SigningKey, TBS, TrustAnchors,
};
use hickory_resolver::proto::op::DnsRequestOptions;
use hickory_resolver::proto::rr::DNSClass;
use hickory_resolver::proto::rr::rdata::{A, CNAME, NS, TLSA, tlsa};

use super::*;

const MX_HOST: &str = "mx.victim.example.";
const TLSA_OWNER: &str = "_25._tcp.mx.victim.example.";
const SIGNED: [&str; 3] = [".", "example.", "victim.example."];

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(name(owner), 60, data)
}

/// Without salt and iterations (RFC 9276 §3.1).
fn hash(of: &str) -> Vec<u8> {
    Nsec3HashAlgorithm::SHA1.hash(&[], &name(of), 0).unwrap().as_ref().to_vec()
}

fn cut(owner: &str) -> Record {
    record(owner, RData::NS(NS(name("ns.evil.example."))))
}

fn forged_tlsa() -> Record {
    let (usage, selector, matching) =
        (tlsa::CertUsage::DaneEe, tlsa::Selector::Spki, tlsa::Matching::Sha256);
    record(TLSA_OWNER, RData::TLSA(TLSA::new(usage, selector, matching, vec![0; 32])))
}

/// Zones, and what is said of them.
#[derive(Clone)]
struct Internet {
    keys: Arc<HashMap<Name, EcdsaSigningKey>>,
    said: HashMap<(Name, RecordType), Message>,
}

impl Internet {
    fn new() -> Self {
        let key = |zone: &&str| {
            let key = EcdsaSigningKey::generate_pkcs8(ALGORITHM).unwrap();
            let key = EcdsaSigningKey::from_pkcs8(&key, ALGORITHM).unwrap();
            (name(zone), key)
        };
        let mut internet =
            Self { keys: Arc::new(SIGNED.iter().map(key).collect()), said: HashMap::new() };
        for zone in SIGNED {
            internet.answer(zone, &internet.signed(zone, vec![internet.key_at(zone, zone)]));
        }
        for (zone, above) in [("example.", "."), ("victim.example.", "example.")] {
            let digest = internet.dnskey(zone).to_digest(&name(zone), DigestType::SHA256).unwrap();
            let tag = internet.dnskey(zone).calculate_key_tag().unwrap();
            let ds = DS::new(tag, ALGORITHM, DigestType::SHA256, digest.as_ref().to_vec());
            let ds = record(zone, RData::DNSSEC(DNSSECRData::DS(ds)));
            internet.answer(zone, &internet.signed(above, vec![ds]));
            internet.answer(zone, &[cut(zone)]);
        }
        let nsec = NSEC::new(name("f.example."), [RecordType::NS]);
        let nsec = record("evil.example.", RData::DNSSEC(DNSSECRData::NSEC(nsec)));
        let denial = internet.signed("example.", vec![nsec]);
        internet.say("evil.example.", RecordType::DS, &[], &denial);
        internet.answer("evil.example.", &[cut("evil.example.")]);
        internet
    }

    fn public_key(&self, zone: &str) -> PublicKeyBuf {
        self.keys[&name(zone)].to_public_key().unwrap()
    }

    fn dnskey(&self, zone: &str) -> DNSKEY {
        DNSKEY::new(true, true, false, self.public_key(zone))
    }

    /// The key of a zone under some name.
    fn key_at(&self, owner: &str, zone: &str) -> Record {
        record(owner, RData::DNSSEC(DNSSECRData::DNSKEY(self.dnskey(zone))))
    }

    /// The records, which are one set, and the zone's signature.
    fn signed(&self, zone: &str, mut records: Vec<Record>) -> Vec<Record> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let at = |secs: u64| SerialNumber::from(u32::try_from(secs).unwrap());
        let owner = records[0].name.clone();
        let input = SigInput {
            type_covered: records[0].record_type(),
            algorithm: ALGORITHM,
            num_labels: owner.num_labels(),
            original_ttl: 60,
            sig_expiration: at(now + 3600),
            sig_inception: at(now - 3600),
            key_tag: self.dnskey(zone).calculate_key_tag().unwrap(),
            signer_name: name(zone),
        };
        let signed = TBS::from_input(&owner, DNSClass::IN, &input, records.iter()).unwrap();
        let signature = self.keys[&name(zone)].sign(&signed).unwrap();
        let signature = RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(input, signature)));
        records.push(Record::from_rdata(owner, 60, signature));
        records
    }

    /// A hashed denial of a name that is not there, as far as its zone knows.
    fn covering(&self, zone: &str, of: &str, opt_out: bool) -> Vec<Record> {
        let hash = hash(of);
        let [mut before, mut after] = [hash.clone(), hash];
        *before.last_mut().unwrap() -= 1;
        *after.last_mut().unwrap() += 1;
        self.hashed(zone, &before, &after, opt_out, &[])
    }

    /// What a zone with hashed denials says of a name that is there.
    fn matching(&self, zone: &str, of: &str, types: &[RecordType]) -> Vec<Record> {
        let mut after = hash(of);
        *after.last_mut().unwrap() += 1;
        self.hashed(zone, &hash(of), &after, true, types)
    }

    fn hashed(
        &self,
        zone: &str,
        from: &[u8],
        to: &[u8],
        opt_out: bool,
        types: &[RecordType],
    ) -> Vec<Record> {
        let nsec3 = |next: &[u8]| {
            let types = types.iter().copied();
            NSEC3::new(Nsec3HashAlgorithm::SHA1, opt_out, 0, Vec::new(), next.to_vec(), types)
        };
        let label = nsec3(from).next_hashed_owner_name_base32().unwrap().clone();
        let owner = name(zone).prepend_label(label).unwrap();
        let nsec3 = RData::DNSSEC(DNSSECRData::NSEC3(nsec3(to)));
        self.signed(zone, vec![Record::from_rdata(owner, 60, nsec3)])
    }

    /// What is said to the question for the first record.
    fn answer(&mut self, owner: &str, answers: &[Record]) {
        self.say(owner, answers[0].record_type(), answers, &[]);
    }

    fn say(&mut self, owner: &str, kind: RecordType, answers: &[Record], authorities: &[Record]) {
        let mut message = Message::query();
        message.add_query(Query::query(name(owner), kind));
        message.answers = answers.to_vec();
        message.authorities = authorities.to_vec();
        self.said.insert((name(owner), kind), message);
    }

    /// The proof of the records of the type asked for; none where the response is not believed at all.
    async fn proof(&self, owner: &str, kind: RecordType) -> Option<Vec<Proof>> {
        let plain = Narrowed { handle: self.clone(), denials: None };
        let validating = self.clone();
        let denials: Denials = Arc::new(move |name| {
            let (validating, plain) = (validating.clone(), plain.clone());
            Box::pin(async move {
                let response = validating.validated(plain, name, RecordType::DS).await;
                response.map(|response| response.authorities.clone()).unwrap_or_default()
            })
        });
        let narrowed = Narrowed { handle: self.clone(), denials: Some(denials) };
        let response = self.validated(narrowed, name(owner), kind).await?;
        let answers = response.answers.iter().filter(|record| record.record_type() == kind);
        Some(answers.map(|record| record.proof).collect())
    }

    async fn validated(
        &self,
        narrowed: Narrowed<Self>,
        name: Name,
        kind: RecordType,
    ) -> Option<DnsResponse> {
        let mut anchors = TrustAnchors::empty();
        anchors.insert(&self.public_key("."));
        let validating = DnssecDnsHandle::with_trust_anchor(narrowed, Arc::new(anchors));
        let mut options = DnsRequestOptions::default();
        options.edns_set_dnssec_ok = true;
        validating.lookup(Query::query(name, kind), options).first_answer().await.ok()
    }
}

impl DnsHandle for Internet {
    type Response = DnsResponseStream;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let query = request.queries[0].clone();
        let said = self.said.get(&(query.name().clone(), query.query_type())).cloned();
        let message = said.unwrap_or_else(|| {
            let mut nothing = Message::query();
            nothing.add_query(query);
            nothing
        });
        let response = DnsResponse::from_message(message.into_response());
        DnsResponseStream::from(Box::pin(async move { Ok(response?) }))
    }
}

#[tokio::test]
async fn what_is_rightly_signed_is_believed() {
    let mut internet = Internet::new();
    let mut tlsa = internet.signed("victim.example.", vec![forged_tlsa()]);
    internet.answer(TLSA_OWNER, &tlsa);
    assert_eq!(internet.proof(TLSA_OWNER, RecordType::TLSA).await, Some(vec![Proof::Secure]));
    tlsa[1] = signed_by_nobody(5);
    internet.answer(TLSA_OWNER, &tlsa);
    assert_eq!(internet.proof(TLSA_OWNER, RecordType::TLSA).await, Some(vec![Proof::Bogus]));
    let unsigned = record("evil.example.", RData::A(A::new(192, 0, 2, 1)));
    internet.answer("evil.example.", &[unsigned]);
    assert_eq!(internet.proof("evil.example.", RecordType::A).await, Some(vec![Proof::Insecure]));
}

/// Forged TLSA records, and what else is said.
async fn proof_of_forged(say: impl FnOnce(&mut Internet)) -> Option<Vec<Proof>> {
    let mut internet = Internet::new();
    internet.answer(TLSA_OWNER, &[forged_tlsa(), signed_by_nobody(5)]);
    say(&mut internet);
    internet.proof(TLSA_OWNER, RecordType::TLSA).await
}

fn alias(owner: &str) -> Record {
    record(owner, RData::CNAME(CNAME(name("evil.example."))))
}

#[tokio::test]
async fn no_zone_has_the_keys_of_another() {
    let proof = proof_of_forged(|internet| {
        // An unsigned zone's.
        let key = internet.key_at("evil.example.", "victim.example.");
        let answers = [alias("victim.example."), key];
        internet.say("victim.example.", RecordType::DNSKEY, &answers, &[]);
    });
    assert_eq!(proof.await, Some(vec![Proof::Bogus]));
}

#[tokio::test]
async fn no_zone_begins_where_another_does() {
    let proof = proof_of_forged(|internet| {
        // With keys that nobody knows how to use.
        let unknown = DS::new(1, Algorithm::Unknown(200), DigestType::SHA256, vec![0; 32]);
        let unknown = record("odd.example.", RData::DNSSEC(DNSSECRData::DS(unknown)));
        let mut answers = internet.signed("example.", vec![unknown]);
        answers.insert(0, alias("victim.example."));
        internet.say("victim.example.", RecordType::DS, &answers, &[]);
    });
    assert_eq!(proof.await, Some(vec![Proof::Bogus]));
}

#[tokio::test]
async fn a_signature_of_something_else_makes_no_denial() {
    // The zone above knows nothing below the cut, so its hashed denials cover all that is there.
    let foreign = "_25._tcp.x.evil.example.";
    let address = record(foreign, RData::A(A::new(192, 0, 2, 1)));
    let of_foreign = record(foreign, signature_by(RecordType::A, 2, "evil.example."));
    for answers in [vec![signed_by_nobody(2)], vec![address, of_foreign]] {
        let proof = proof_of_forged(|internet| {
            let denial = internet.covering("example.", MX_HOST, false);
            internet.say(TLSA_OWNER, RecordType::TLSA, &answers, &denial);
        });
        assert_eq!(proof.await, None, "{answers:?}");
    }
}

#[tokio::test]
async fn a_wildcard_above_a_cut_stands_for_nothing_below_it() {
    let mut internet = Internet::new();
    let wildcard = record("*.example.", RData::A(A::new(192, 0, 2, 1)));
    let mut answers = internet.signed("example.", vec![wildcard]);
    answers.iter_mut().for_each(|record| record.name = name(MX_HOST));
    // Of more labels than the wildcard has: those to the cut, below which the zone denies everything.
    answers.insert(1, record(MX_HOST, signature_by(RecordType::A, 2, "example.")));
    let denial = internet.covering("example.", MX_HOST, false);
    internet.say(MX_HOST, RecordType::A, &answers, &denial);
    assert_eq!(internet.proof(MX_HOST, RecordType::A).await, None);
    // One that stands for this name.
    answers.remove(1);
    let denial = internet.covering("example.", "victim.example.", false);
    internet.say(MX_HOST, RecordType::A, &answers, &denial);
    assert_eq!(internet.proof(MX_HOST, RecordType::A).await, Some(vec![Proof::Secure]));
}

/// An address without a signature below a cut, and what the zone above says of its keys.
async fn proof_below_a_cut(owner: &str, denials: impl Fn(&Internet) -> Vec<Record>) -> Proof {
    let mut internet = Internet::new();
    internet.answer(owner, &[record(owner, RData::A(A::new(192, 0, 2, 1)))]);
    internet.answer(owner, &[cut(owner)]);
    let denials = denials(&internet);
    internet.say(owner, RecordType::DS, &[], &denials);
    // All the same where the name between that and the zone above is asked for.
    let between = name(owner).base_name().to_ascii();
    if !SIGNED.contains(&between.as_str()) {
        internet.say(&between, RecordType::NS, &[], &denials);
        // As NSD does it, which leaves the half out.
        internet.say(&between, RecordType::DS, &[], &denials[..2]);
    }
    internet.proof(owner, RecordType::A).await.unwrap()[0]
}

/// What a zone above says of itself.
fn apex(internet: &Internet) -> Vec<Record> {
    internet.matching("example.", "example.", &[RecordType::NS, RecordType::SOA])
}

#[tokio::test]
async fn a_gap_is_for_zones_right_below_a_name_that_is_there() {
    for (owner, opt_out, proof) in [
        ("plain.example.", true, Proof::Insecure),
        ("plain.example.", false, Proof::Bogus),
        // Nobody says that nothing is between.
        ("far.deep.example.", true, Proof::Bogus),
        (MX_HOST, true, Proof::Bogus),
    ] {
        let found = proof_below_a_cut(owner, |internet| {
            [apex(internet), internet.covering("example.", owner, opt_out)].concat()
        });
        assert_eq!(found.await, proof, "{owner}, {opt_out}");
    }
    // The zone above knows the cut, and nothing below it.
    let found = proof_below_a_cut(MX_HOST, |internet| {
        let cut = [RecordType::NS, RecordType::DS];
        let cut = internet.matching("example.", "victim.example.", &cut);
        [apex(internet), cut, internet.covering("example.", MX_HOST, true)].concat()
    });
    assert_eq!(found.await, Proof::Bogus);
    // A cut that it does know.
    let found = proof_below_a_cut("plain.example.", |internet| {
        internet.matching("example.", "plain.example.", &[RecordType::NS])
    });
    assert_eq!(found.await, Proof::Insecure);
}

#[tokio::test]
async fn what_is_said_to_be_there_is_proven_to_be() {
    // Somebody says it of the cut, or of the host itself, beside a gap that is one.
    for there in ["victim.example.", MX_HOST] {
        let found = proof_below_a_cut(MX_HOST, |internet| {
            let mut forged = internet.matching("example.", there, &[RecordType::A]);
            let labels = forged[0].name.num_labels();
            let signature = signature_by(RecordType::NSEC3, labels, "example.");
            forged[1] = Record::from_rdata(forged[0].name.clone(), 60, signature);
            [forged, internet.covering("example.", MX_HOST, true)].concat()
        });
        assert_eq!(found.await, Proof::Bogus, "{there}");
    }
}

#[tokio::test]
async fn an_unsigned_zone_may_be_far_below_a_name_that_is_there() {
    // Between is what is there for its sake only, or for others' as well.
    for (opt_out, proof) in [(true, Proof::Insecure), (false, Proof::Bogus)] {
        let found = proof_below_a_cut("far.deep.example.", |internet| {
            [apex(internet), internet.covering("example.", "deep.example.", opt_out)].concat()
        });
        assert_eq!(found.await, proof);
        let found = proof_below_a_cut("far.deep.example.", |internet| {
            let there = internet.matching("example.", "deep.example.", &[]);
            [there, internet.covering("example.", "far.deep.example.", opt_out)].concat()
        });
        assert_eq!(found.await, proof);
    }
}

/// A signature in form only over the TLSA records.
fn signed_by_nobody(num_labels: u8) -> Record {
    record(TLSA_OWNER, signature_by(RecordType::TLSA, num_labels, "victim.example."))
}

const ALGORITHM: Algorithm = Algorithm::ECDSAP256SHA256;
