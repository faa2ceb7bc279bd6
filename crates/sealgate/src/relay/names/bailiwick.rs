//! What of a DNS response can say something about its question; the rest is taken out before anything is validated.
//!
//! In: the responses of name servers. Out: the same without records that answer something else or belong to no zone of the
//! question's. hickory-net 0.26.3 takes whatever keys are in the answer for the keys of the zone that was asked about, so that
//! those of an unsigned zone would make any zone unsigned (RFC 4035 §5.2, §5.3.1), and any signature there for one of a
//! wildcard's record. It believes each denial whose authority section is out of provably unsigned zones, and each NSEC and NSEC3 record that
//! somebody signed correctly, without asking whether these zones have the name in question below them: whoever is on the way
//! to the resolver would deny TLSA and MX records with a zone of his own (RFC 4035 §5.4). hickory-resolver takes a record in
//! the additional section, which nobody needs here, for the answer.

use std::collections::BTreeSet;
use std::future::Future;
use std::mem::take;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, DnsResponseStream, FirstAnswer as _};
use hickory_resolver::proto::dnssec::rdata::{DNSSECRData, RRSIG};
use hickory_resolver::proto::op::{DnsRequest, DnsResponse, Message, Query};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
#[cfg(test)]
use hickory_resolver::proto::{
    dnssec::{Algorithm, rdata::SigInput},
    rr::SerialNumber,
};
use hickory_resolver::{ConnectionProvider, PoolContext};

use super::opt_out::{self, Encloser};

/// Connections to name servers whose responses are narrowed.
#[derive(Clone, Default)]
pub(super) struct Connections {
    provider: TokioRuntimeProvider,
    denials: Option<Denials>,
}

/// Gives the validated denial of a name's DS records; nothing where there is none. Without it no unsigned zone is seen that
/// takes more than one denial, as none is on the way from the root to a signed one.
pub(super) type Denials =
    Arc<dyn Fn(Name) -> Pin<Box<dyn Future<Output = Vec<Record>> + Send>> + Send + Sync>;

impl Connections {
    pub(super) fn with_denials(denials: Denials) -> Self {
        Self { denials: Some(denials), ..Self::default() }
    }
}

impl ConnectionProvider for Connections {
    type Conn = Narrowed<<TokioRuntimeProvider as ConnectionProvider>::Conn>;
    type FutureConn = Pin<Box<dyn Future<Output = Result<Self::Conn, NetError>> + Send>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        cx: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let opening = self.provider.new_connection(ip, config, cx)?;
        let denials = self.denials.clone();
        Ok(Box::pin(async move { Ok(Narrowed { handle: opening.await?, denials }) }))
    }

    fn runtime_provider(&self) -> &Self::RuntimeProvider {
        &self.provider
    }
}

/// One connection.
#[derive(Clone)]
pub(super) struct Narrowed<H> {
    handle: H,
    denials: Option<Denials>,
}

impl<H: DnsHandle> DnsHandle for Narrowed<H> {
    type Response = DnsResponseStream;
    type Runtime = H::Runtime;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let narrowed = self.clone();
        DnsResponseStream::from(Box::pin(async move { narrowed.ask(request).await }))
    }
}

impl<H: DnsHandle> Narrowed<H> {
    async fn ask(&self, request: DnsRequest) -> Result<DnsResponse, NetError> {
        let question = request.queries.first().cloned();
        let mut response = self.receive(request.clone()).await?;
        let Some(question) = question else { return Ok(response) };
        if opt_out::is_silent(&response, &question) {
            let about_cut = opt_out::about_cut(&request, &question);
            let mut other = self.receive(about_cut).await?;
            response.metadata.truncation |= other.truncation;
            response.authorities = take(&mut other.authorities);
        }
        if let Some(encloser) = narrow(&mut response, &question) {
            let is_there = match &self.denials {
                Some(denials) => encloser.is_there(&denials(encloser.name.clone()).await),
                None => false,
            };
            if !is_there {
                opt_out::take_out(&mut response);
            }
        }
        Ok(response)
    }

    async fn receive(&self, request: DnsRequest) -> Result<DnsResponse, NetError> {
        let response = self.handle.send(request).first_answer().await?;
        if response.as_buffer().len() > MESSAGE_OCTETS_MAX {
            return Err(NetError::from("the response is too long"));
        }
        Ok(response)
    }
}

/// Takes out what says nothing about the question. Where a name is returned that turns out not to be there, the hashed denials
/// do not either.
#[must_use]
pub(crate) fn narrow(message: &mut Message, question: &Query) -> Option<Encloser> {
    message.additionals.clear();
    narrow_answers(message, question);
    narrow_to_wildcard(message, question);
    // A record where it was signed needs no denial (RFC 4035 §3.1.3.3), nor does an alias: what it leads to, or that this
    // is not there, is asked for by itself.
    if is_answered(message, question) && !is_out_of_a_wildcard(message) {
        message.authorities.clear();
        return None;
    }
    let names = names_in_question(&message.answers, question);
    let has_below = |zone: &Name| names.iter().any(|name| zone.zone_of(name));
    let authorities = take(&mut message.authorities);
    let is_signed_above = |record: &Record| {
        authorities.iter().filter(|other| other.name == record.name).any(|other| {
            signature(other).is_some_and(|signature| {
                signature.input().type_covered == record.record_type()
                    && has_below(&signature.input().signer_name)
            })
        })
    };
    let says_something = |record: &&Record| match record.record_type() {
        RecordType::NSEC | RecordType::NSEC3 => is_signed_above(record),
        RecordType::NS | RecordType::SOA => has_below(&record.name),
        RecordType::RRSIG => signature(record).is_some_and(|signature| {
            let covered = signature.input().type_covered;
            DENYING.contains(&covered) && has_below(&signature.input().signer_name)
        }),
        _ => false,
    };
    message.authorities = authorities.iter().filter(says_something).cloned().collect();
    opt_out::narrow(message, question)
}

/// Takes out of the answer what is of another name or type, and signatures without what they sign: hickory reads out of any how
/// many labels of the name are a wildcard's, and with too few of them a zone above a cut denies what is below.
fn narrow_answers(message: &mut Message, question: &Query) {
    let answers = take(&mut message.answers);
    let names = names_in_question(&answers, question);
    let is_alias = |kind| kind == RecordType::CNAME && !is_of_chain_of_trust(question);
    let says_something = |record: &&Record| {
        let kind = kind_in_question(record);
        names.contains(&&record.name) && (kind == question.query_type() || is_alias(kind))
    };
    let signed: BTreeSet<(&Name, RecordType)> = answers
        .iter()
        .filter(|record| signature(record).is_none())
        .map(|record| (&record.name, record.record_type()))
        .collect();
    let says_it_of_something = |record: &&Record| {
        says_something(record) && signed.contains(&(&record.name, kind_in_question(record)))
    };
    message.answers = answers.iter().filter(says_it_of_something).cloned().collect();
}

/// Leaves the signatures of the name that are of the least labels: hickory takes any one's for those of the wildcard, though
/// another one is good, and with too many of them a zone denies below a cut what it does not know.
fn narrow_to_wildcard(message: &mut Message, question: &Query) {
    let labels = |record: &Record| {
        let signature = signature(record).filter(|_| record.name == *question.name());
        signature.map(|signature| signature.input().num_labels)
    };
    let least = message.answers.iter().filter_map(labels).min();
    message.answers.retain(|record| labels(record).is_none_or(|of| Some(of) == least));
}

/// There is the record, or an alias.
fn is_answered(message: &Message, question: &Query) -> bool {
    message.answers.iter().filter(|record| record.name == *question.name()).any(|record| {
        let kind = record.record_type();
        kind == question.query_type() || kind == RecordType::CNAME
    })
}

fn is_out_of_a_wildcard(message: &Message) -> bool {
    message.answers.iter().any(|record| {
        let signature = signature(record);
        signature.is_some_and(|it| it.input().num_labels < record.name.num_labels())
    })
}

/// The name that was asked for, and those that it is an alias of. A zone's keys are under no other name than its own, and
/// here nobody has looked yet whether the alias is signed.
fn names_in_question<'a>(answers: &'a [Record], question: &'a Query) -> Vec<&'a Name> {
    let mut names = vec![question.name()];
    if is_of_chain_of_trust(question) {
        return names;
    }
    for record in answers {
        if let RData::CNAME(target) = &record.data
            && names.last().is_some_and(|name| **name == record.name)
        {
            names.push(&target.0);
        }
    }
    names
}

fn is_of_chain_of_trust(question: &Query) -> bool {
    KEYS_AND_CUTS.contains(&question.query_type())
}

/// The type of a record, or of those that a signature is of.
pub(super) fn kind_in_question(record: &Record) -> RecordType {
    signature(record).map_or(record.record_type(), |signature| signature.input().type_covered)
}

fn signature(record: &Record) -> Option<&RRSIG> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => Some(signature),
        _ => None,
    }
}

/// REQUIREMENTS K13: the longest response that is looked at; over TCP 65535 octets are read before that is known.
const MESSAGE_OCTETS_MAX: usize = 16 * 1024;
/// What a denial is made of.
const DENYING: [RecordType; 4] =
    [RecordType::NS, RecordType::NSEC, RecordType::NSEC3, RecordType::SOA];
/// What the chain of trust is made of.
const KEYS_AND_CUTS: [RecordType; 4] =
    [RecordType::DNSKEY, RecordType::DS, RecordType::NS, RecordType::SOA];

#[cfg(test)]
mod forged;

/// A signature in form only.
#[cfg(test)]
pub(super) fn signature_by(type_covered: RecordType, num_labels: u8, signer: &str) -> RData {
    let input = SigInput {
        type_covered,
        algorithm: Algorithm::ECDSAP256SHA256,
        num_labels,
        original_ttl: 60,
        sig_expiration: SerialNumber::from(1),
        sig_inception: SerialNumber::from(0),
        key_tag: 1,
        signer_name: signer.parse().unwrap(),
    };
    RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(input, vec![0])))
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::dnssec::rdata::NSEC;
    use hickory_resolver::proto::rr::rdata::{CNAME, NS};

    use super::*;

    const OWNER: &str = "_25._tcp.mx.victim.example.";

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn record(owner: &str, data: RData) -> Record {
        Record::from_rdata(name(owner), 60, data)
    }

    fn cut(owner: &str) -> Record {
        record(owner, RData::NS(NS(name("ns.example."))))
    }

    fn alias(owner: &str, target: &str) -> Record {
        record(owner, RData::CNAME(CNAME(name(target))))
    }

    fn signed(owner: &str, type_covered: RecordType, num_labels: u8, signer: &str) -> Record {
        record(owner, signature_by(type_covered, num_labels, signer))
    }

    fn denial(owner: &str, signer: &str) -> [Record; 2] {
        let nsec = NSEC::new(name("zz.example."), [RecordType::A]);
        let labels = name(owner).num_labels();
        [
            record(owner, RData::DNSSEC(DNSSECRData::NSEC(nsec))),
            signed(owner, RecordType::NSEC, labels, signer),
        ]
    }

    /// How many records are left in the authority section.
    fn left(kind: RecordType, answers: &[Record], authorities: &[Record]) -> usize {
        let mut message = Message::query();
        message.answers = answers.to_vec();
        message.authorities = authorities.to_vec();
        message.additionals = vec![cut(OWNER)];
        assert_eq!(narrow(&mut message, &Query::query(name(OWNER), kind)), None);
        assert!(message.answers.iter().all(|record| answers.contains(record)));
        assert!(message.additionals.is_empty());
        message.authorities.len()
    }

    #[test]
    fn answers_are_of_the_name_and_the_type() {
        let left = |kind, answers: &[Record]| {
            let mut message = Message::query();
            message.answers = answers.to_vec();
            assert_eq!(narrow(&mut message, &Query::query(name(OWNER), kind)), None);
            message.answers
        };
        let there = "there.victim.example.";
        let answers = [
            alias(OWNER, there),
            signed(OWNER, RecordType::CNAME, 5, "victim.example."),
            cut(there),
            signed(there, RecordType::NS, 3, "victim.example."),
        ];
        assert_eq!(left(RecordType::MX, &answers), answers[..2], "and the alias");
        assert_eq!(left(RecordType::CNAME, &answers), answers[..2]);
        assert_eq!(left(RecordType::NS, &answers), [], "no chain of trust goes by an alias");
        assert_eq!(left(RecordType::MX, &answers[2..]), []);
        assert_eq!(left(RecordType::MX, &answers[1..2]), [], "a signature of nothing");
        let here = [cut(OWNER), signed(OWNER, RecordType::NS, 5, "victim.example.")];
        assert_eq!(left(RecordType::NS, &here), here);
    }

    #[test]
    fn only_zones_above_a_name_deny_it() {
        let left = |authorities: &[Record]| left(RecordType::TLSA, &[], authorities);
        assert_eq!(left(&[cut("victim.example."), cut("mx.victim.example.")]), 2);
        assert_eq!(left(&[cut("unsigned.example."), cut("a.mx.victim.example.")]), 0);
        assert_eq!(left(&denial("mx.victim.example.", "victim.example.")), 2);
        assert_eq!(left(&denial("evil.example.", "evil.example.")), 0);
        let [unsigned, _] = denial("mx.victim.example.", "victim.example.");
        assert_eq!(left(&[unsigned]), 0);
        let forged = signed("victim.example.", RecordType::NS, 2, "evil.example.");
        assert_eq!(left(&[cut("victim.example."), forged]), 1);
        assert_eq!(left(&[alias(OWNER, "victim.example.")]), 0, "no answer stands there");
    }

    #[test]
    fn an_answer_needs_a_denial_only_out_of_a_wildcard() {
        let denial = denial("other.example.", "other.example.");
        let alias = alias(OWNER, "x.other.example.");
        let signature = |labels| signed(OWNER, RecordType::CNAME, labels, "victim.example.");
        let here = [alias.clone(), signature(5)];
        assert_eq!(left(RecordType::TLSA, &here, &denial), 0);
        let wildcard = [alias, signature(3)];
        assert_eq!(left(RecordType::TLSA, &wildcard, &denial), 2);
        // Nobody leads the chain of trust away.
        assert_eq!(left(RecordType::DS, &wildcard, &denial), 0);
    }
}
