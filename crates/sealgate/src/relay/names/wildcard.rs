//! A second look at answers out of wildcards: hickory-resolver 0.26.3 takes most of those for falsified, where the zone denies
//! with NSEC, for it wants a proof that RFC 4035 does not ask for (its pull request 3812 shows it). It also keeps an answer that
//! was garbled on its way in its cache for as long as the records live, where RFC 4035 §4.7 wants it forgotten soon.
//!
//! In: a question whose answer was called bogus. Out: the records as they are now. Where all is well, or every one is signed
//! and what is missing is only that proof, and the proof that is asked for is there (RFC 4035 §5.3.4): the name does not
//! exist, nor anything between it and the wildcard.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::xfer::{DnsHandle as _, FirstAnswer as _, RetryDnsHandle};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::rdata::{DNSSECRData, NSEC, RRSIG};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};

use super::bailiwick::Connections;

/// Asks without a cache.
pub(super) struct SecondLook {
    handle: DnssecDnsHandle<RetryDnsHandle<NameServerPool<Connections>>>,
}

impl fmt::Debug for SecondLook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecondLook").finish_non_exhaustive()
    }
}

impl SecondLook {
    /// # Errors
    /// What hickory says; only if the program was built wrongly.
    pub(super) fn new(
        config: &ResolverConfig,
        options: &ResolverOpts,
        anchors: Arc<TrustAnchors>,
        connections: Connections,
    ) -> Result<Self, String> {
        let tls = TlsConfig::new().map_err(|error| error.to_string())?;
        let context = Arc::new(PoolContext::new(options.clone(), tls));
        let servers = config.name_servers().to_vec();
        let pool = NameServerPool::from_config(servers, context, connections);
        let retry = RetryDnsHandle::new(pool, options.attempts);
        let handle = DnssecDnsHandle::with_trust_anchor(retry, anchors)
            .validation_cache_size(VALIDATED_MAX)
            // What failed once is tried anew: it is known there by its data alone, whatever else was garbled.
            .negative_validation_ttl(Duration::ZERO..=Duration::ZERO);
        Ok(Self { handle })
    }

    /// The validated denial of a name's DS records; nothing where there is none.
    pub(super) async fn denial(&self, name: &Name) -> Vec<Record> {
        match self.look_up(name, RecordType::DS).await {
            Ok(response) => response.authorities.clone(),
            Err(_) => Vec::new(),
        }
    }

    /// The answer's records with their proofs, where there are some and no more than that one is missing.
    pub(super) async fn answers(&self, name: &Name, kind: RecordType) -> Option<Vec<Record>> {
        match self.look_up(name, kind).await {
            Ok(response) => Some(response.answers.clone()),
            Err(NetError::Dns(DnsError::Nsec { response, .. }))
                if response.response_code == ResponseCode::NoError
                    && is_proven(&response.answers, &response.authorities) =>
            {
                Some(response.answers.clone())
            }
            _ => None,
        }
    }

    async fn look_up(&self, name: &Name, kind: RecordType) -> Result<DnsResponse, NetError> {
        let mut options = DnsRequestOptions::default();
        options.edns_set_dnssec_ok = true;
        let query = Query::query(name.clone(), kind);
        self.handle.lookup(query, options).first_answer().await
    }
}

/// Whether every record of an answer is signed, and those out of wildcards are rightly so.
pub(crate) fn is_proven(answers: &[Record], authorities: &[Record]) -> bool {
    let records = || answers.iter().filter(|record| !record.record_type().is_rrsig());
    records().next().is_some()
        && records().all(|record| {
            let signature = signature_of(record.record_type(), &record.name, answers);
            record.proof == Proof::Secure
                && signature.is_some_and(|signature| {
                    is_where_signed(&record.name, signature)
                        || is_denied(&record.name, signature, authorities)
                })
        })
}

/// The record is no wildcard's (RFC 4034 §3.1.3).
fn is_where_signed(name: &Name, signature: &RRSIG) -> bool {
    signature.input().num_labels >= name.num_labels()
}

/// Whether a signed NSEC record of the same zone says that the name is not there and that the closest name above it that
/// is there is the wildcard's parent.
fn is_denied(name: &Name, signature: &RRSIG, authorities: &[Record]) -> bool {
    let parent_labels = signature.input().num_labels;
    authorities.iter().filter(|record| record.proof == Proof::Secure).any(|record| {
        let RData::DNSSEC(DNSSECRData::NSEC(nsec)) = &record.data else { return false };
        let same_zone = signature_of(RecordType::NSEC, &record.name, authorities)
            .is_some_and(|of| of.input().signer_name == signature.input().signer_name);
        let (before, after) = (&record.name, nsec.next_domain_name());
        let closest = labels_in_common(name, before).max(labels_in_common(name, after));
        same_zone && covers(before, nsec, name) && closest == parent_labels
    })
}

/// Whether a name is between an NSEC record and the next; the last one's next is the zone itself.
fn covers(before: &Name, nsec: &NSEC, name: &Name) -> bool {
    let after = nsec.next_domain_name();
    before < name && (name < after || after <= before && after.zone_of(name))
}

/// The signature that proved a record set.
fn signature_of<'a>(kind: RecordType, name: &Name, records: &'a [Record]) -> Option<&'a RRSIG> {
    records.iter().find_map(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature))
            if record.proof == Proof::Secure
                && record.name == *name
                && signature.input().type_covered == kind =>
        {
            Some(signature)
        }
        _ => None,
    })
}

/// Labels from the root on that are the same.
fn labels_in_common(one: &Name, other: &Name) -> u8 {
    let mut common = one.clone();
    while !common.zone_of(other) {
        common = common.base_name();
    }
    common.num_labels()
}

/// Record sets whose validation is remembered.
const VALIDATED_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::A;

    use super::super::bailiwick::signature_by;
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn secure(owner: &str, data: RData) -> Record {
        let mut record = Record::from_rdata(name(owner), 60, data);
        record.proof = Proof::Secure;
        record
    }

    fn signature(owner: &str, kind: RecordType, num_labels: u8, zone: &str) -> Record {
        secure(owner, signature_by(kind, num_labels, zone))
    }

    /// The address of `x.y.z.` out of `*.z.` with one NSEC record.
    fn proven(before: &str, after: &str, zone: &str) -> bool {
        let owner = "x.y.z.";
        let answers = [
            secure(owner, RData::A(A::new(192, 0, 2, 1))),
            signature(owner, RecordType::A, 1, "z."),
        ];
        let nsec = NSEC::new(name(after), [RecordType::A]);
        let authorities = [
            secure(before, RData::DNSSEC(DNSSECRData::NSEC(nsec))),
            signature(before, RecordType::NSEC, 2, zone),
        ];
        is_proven(&answers, &authorities)
    }

    #[test]
    fn a_wildcard_stands_for_names_that_are_denied() {
        assert!(proven("a.z.", "zz.z.", "z."));
        assert!(proven("a.z.", "z.", "z."), "the last of the zone");
    }

    #[test]
    fn a_wildcard_stands_for_no_others() {
        assert!(!proven("a.z.", "b.z.", "z."), "the name is not between");
        assert!(
            !proven("a.y.z.", "zz.y.z.", "z."),
            "there is y.z, for which this wildcard does not stand"
        );
        assert!(!proven("y.z.", "zz.z.", "z."), "there is y.z");
        assert!(!proven("a.z.", "zz.z.", "."), "another zone's word");
        assert!(!proven("zz.z.", "z.", "z."), "the last of the zone is before");
    }

    #[test]
    fn what_is_not_signed_is_not_proven() {
        let mut record = secure("x.y.z.", RData::A(A::new(192, 0, 2, 1)));
        assert!(!is_proven(&[record.clone()], &[]), "no signature");
        let good = signature("x.y.z.", RecordType::A, 3, "z.");
        assert!(is_proven(&[record.clone(), good.clone()], &[]));
        record.proof = Proof::Bogus;
        assert!(!is_proven(&[record, good], &[]));
        assert!(!is_proven(&[], &[]));
    }
}
