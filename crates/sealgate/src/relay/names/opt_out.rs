//! Unsigned zones that hashed denials leave out (opt-out, RFC 5155 §6): hickory-net 0.26.3 sees them where they cannot be, and not
//! all that there are.
//!
//! It looks whether the hash of a zone's name is in a gap. A zone far above, which knows nothing below a cut, has gaps for all
//! that is there, and would make each host of a signed zone an unsigned zone. RFC 5155 §8.6 wants the name in the gap that is
//! right below the closest one that is there, and §8.3 that this one is no cut. That name may be above the unsigned zone's.
//!
//! In: a response without an answer to a question for DS or NS records. Out: the same, so that hickory comes to what the RFC says.
//! Signatures are looked at by hickory alone, so nothing is said here that it does not prove; what would be is handed back.

use std::iter::successors;

use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::dnssec::rdata::{DNSSECRData, NSEC3};
use hickory_resolver::proto::op::{DnsRequest, Message, Query};
use hickory_resolver::proto::rr::rdata::{NS, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::bailiwick::kind_in_question;

/// A name that must be one of a zone's own, and no cut, so that a denial counts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Encloser {
    pub(super) name: Name,
    zone: Name,
}

impl Encloser {
    /// Whether a validated denial of its DS records says that it is there.
    pub(super) fn is_there(&self, authorities: &[Record]) -> bool {
        let secure: Vec<Record> =
            authorities.iter().filter(|record| record.proof == Proof::Secure).cloned().collect();
        Denials::of(&self.name, &secure).is_some_and(|denials| {
            denials.zone == self.zone
                && denials.at(&self.name).is_some_and(|there| !there.is_ancestor_delegation())
        })
    }
}

/// Makes hickory see the unsigned zones that there are, and no others. Where a name is returned that turns out not to be
/// there, [`take_out`] the denials.
#[must_use]
pub(super) fn narrow(message: &mut Message, question: &Query) -> Option<Encloser> {
    let name = question.name();
    if ![RecordType::DS, RecordType::NS].contains(&question.query_type()) {
        return None;
    }
    let denials = Denials::of(name, &message.authorities);
    let said = denials.as_ref().and_then(|denials| denials.say(name));
    let zone = denials.map(|denials| denials.zone);
    match (question.query_type(), said) {
        // Were this record forged, hickory would not look at it, and find a gap.
        (RecordType::DS, Some(Said::Known(owner))) => {
            message.authorities.retain(|record| !is_hashed(record) || record.name == owner);
        }
        (RecordType::DS, Some(Said::LeftOut(left_out))) if left_out == *name => {
            let encloser = zone.map(|zone| Encloser { name: name.base_name(), zone });
            // Who denies something right below himself is there.
            return encloser.filter(|encloser| encloser.name != encloser.zone);
        }
        // As its own servers would say it: hickory then asks whether it is unsigned.
        (RecordType::DS, Some(Said::LeftOut(left_out))) => {
            let data = SOA::new(Name::root(), Name::root(), 0, 0, 0, 0, 0);
            message.authorities = vec![Record::from_rdata(left_out, 0, RData::SOA(data))];
        }
        (RecordType::DS, None) => take_out(message),
        // Hickory asks for DS records where a zone begins; nobody signs that (RFC 4035 §2.2), so nobody need believe it.
        (RecordType::NS, Some(Said::LeftOut(left_out))) if left_out == *name => {
            let cut = Record::from_rdata(left_out, 0, RData::NS(NS(Name::root())));
            message.answers.push(cut);
        }
        _ => (),
    }
    None
}

/// Whether hashed denials say nothing of the name that was asked for.
pub(super) fn is_silent(message: &Message, question: &Query) -> bool {
    let name = question.name();
    question.query_type() == RecordType::DS
        && message.answers.is_empty()
        && Denials::of(name, &message.authorities)
            .is_some_and(|denials| denials.say(name).is_none())
}

/// The question whose answer has the same denials. NSD 4.6 leaves out the half of what there is to a question for DS records
/// where only unsigned zones are below the name.
pub(super) fn about_cut(request: &DnsRequest, question: &Query) -> DnsRequest {
    let query = Query::query(question.name().clone(), RecordType::NS);
    let mut about_cut = DnsRequest::from_query(query, *request.options());
    about_cut.edns.clone_from(&request.edns);
    about_cut
}

/// Takes hashed denials out.
pub(super) fn take_out(message: &mut Message) {
    message.authorities.retain(|record| !is_hashed(record));
}

fn is_hashed(record: &Record) -> bool {
    kind_in_question(record) == RecordType::NSEC3
}

/// What hashed denials say of a name.
enum Said {
    /// It is there; the name of the record that says so.
    Known(Name),
    /// It is below this name, or the same, at which there may be an unsigned zone.
    LeftOut(Name),
}

/// The hashed denials of one zone.
struct Denials<'a> {
    zone: Name,
    /// The hash that each has in its name, and the rest of it.
    records: Vec<(Vec<u8>, &'a Record, &'a NSEC3)>,
}

impl<'a> Denials<'a> {
    /// None where there are none, or none that can be looked at together: of several zones or with several ways to hash
    /// (RFC 5155 §8.2), of no zone above the name, or with too much work to do.
    fn of(name: &Name, authorities: &'a [Record]) -> Option<Self> {
        let nsec3 = |record: &'a Record| match &record.data {
            RData::DNSSEC(DNSSECRData::NSEC3(nsec3)) => {
                Some(hash_in(&record.name).map(|hash| (hash, record, nsec3)))
            }
            _ => None,
        };
        let records: Vec<_> = authorities.iter().filter_map(nsec3).collect::<Option<_>>()?;
        let (_, first, how) = records.first()?;
        let zone = first.name.base_name();
        let is_together = records.iter().all(|(_, record, nsec3)| {
            record.name.base_name() == zone
                && nsec3.hash_algorithm() == how.hash_algorithm()
                && nsec3.salt() == how.salt()
                && nsec3.iterations() == how.iterations()
        });
        let is_above = zone.zone_of(name) && zone != *name;
        (is_together && is_above && how.iterations() <= ITERATIONS_MAX)
            .then_some(Self { zone, records })
    }

    fn say(&self, name: &Name) -> Option<Said> {
        let hash = self.hash(name)?;
        if let Some((_, record, _)) = self.records.iter().find(|(there, ..)| *there == hash) {
            return Some(Said::Known(record.name.clone()));
        }
        let is_top = |below: &Name| below.base_name() == self.zone;
        let next_closer =
            successors(Some(name.clone()), |below| (!is_top(below)).then(|| below.base_name()))
                .find(|below| is_top(below) || self.at(&below.base_name()).is_some())?;
        let is_cut = self.at(&next_closer.base_name()).is_some_and(NSEC3::is_ancestor_delegation);
        let hash = self.hash(&next_closer)?;
        let gaps = || self.records.iter().filter(|(from, _, nsec3)| is_between(from, &hash, nsec3));
        let is_left_out = gaps().next().is_some() && gaps().all(|(_, _, nsec3)| nsec3.opt_out());
        (is_left_out && !is_cut).then_some(Said::LeftOut(next_closer))
    }

    /// What is said of a name that is there.
    fn at(&self, name: &Name) -> Option<&'a NSEC3> {
        let hash = self.hash(name)?;
        self.records.iter().find(|(there, ..)| *there == hash).map(|(_, _, nsec3)| *nsec3)
    }

    /// RFC 5155 §5.
    fn hash(&self, name: &Name) -> Option<Vec<u8>> {
        let (_, _, how) = self.records.first()?;
        let hash = how.hash_algorithm().hash(how.salt(), name, how.iterations()).ok()?;
        Some(hash.as_ref().to_vec())
    }
}

/// Whether a hash is after one and before the next; the last one's next is the first.
fn is_between(from: &[u8], hash: &[u8], nsec3: &NSEC3) -> bool {
    let to = nsec3.next_hashed_owner_name();
    match from < to {
        true => from < hash && hash < to,
        false => hash != from && (from < hash || hash < to),
    }
}

/// The first label read in base 32 with the extended hex alphabet, in which a digit is worth what it looks like (RFC 4648 §7).
fn hash_in(owner: &Name) -> Option<Vec<u8>> {
    let label = owner.iter().next().filter(|label| label.len() == HASH_DIGITS)?;
    let mut hash = Vec::new();
    for digits in label.chunks(8) {
        let value = digits.iter().try_fold(0_u64, |value, digit| {
            Some(value << 5 | u64::from(char::from(*digit).to_digit(32)?))
        })?;
        hash.extend(value.to_be_bytes().into_iter().skip(3));
    }
    Some(hash)
}

/// Of SHA-1, the only way to hash (RFC 5155 §11).
const HASH_DIGITS: usize = 32;
/// With more hickory finds nothing secure (RFC 9276 §3.2).
const ITERATIONS_MAX: u16 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_out_of_a_name() {
        // RFC 5155 appendix A: the hash of "example".
        let hash = hash_in(&"0p9mhaveqvm6t7vbl5lop2u3t2rp3tom.example.".parse().unwrap());
        let expected = [
            0x06, 0x53, 0x68, 0xab, 0xee, 0xd7, 0xec, 0x6e, 0x9f, 0xeb, 0xa9, 0x6b, 0x8c, 0x8b,
            0xc3, 0xe8, 0xb7, 0x91, 0xf7, 0x16,
        ];
        assert_eq!(hash.as_deref(), Some(&expected[..]));
        for malformed in ["0p9mhaveqvm6t7vbl5lop2u3t2rp3to.", "w.example.", "."] {
            assert_eq!(hash_in(&malformed.parse().unwrap()), None, "{malformed}");
        }
        let long = "0p9mhaveqvm6t7vbl5lop2u3t2rp3tomm.example.";
        assert_eq!(hash_in(&long.parse().unwrap()), None);
    }
}
