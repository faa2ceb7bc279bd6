//! DANE for SMTP (RFC 7672): which TLSA records count, and whether a server's certificates match them.
//!
//! In: the validated TLSA records of a server's port, and later its certificates. Out: [`Tlsa`], and yes or no. The
//! look-up is [`super::route`]'s; that records come by DNSSEC or not at all is seen to there.

use aws_lc_rs::digest;
use hickory_resolver::proto::rr::rdata::TLSA;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

/// What the TLSA records of a server say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tlsa {
    /// There are none.
    #[default]
    Absent,
    /// There are some, none of which can be used: encryption is a must, verification is not possible (RFC 7672 §2.2).
    Unusable,
    /// At least one of these must match.
    Records(Vec<Association>),
}

/// A TLSA record that can be used for SMTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Association {
    /// DANE-TA(2) instead of DANE-EE(3).
    is_anchor: bool,
    /// SPKI(1) instead of Cert(0).
    key_only: bool,
    matching: Matching,
    data: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matching {
    Full,
    Sha256,
    Sha512,
}

impl Tlsa {
    /// Sorts out what can be used: usages 2 and 3 (RFC 7672 §3.1.3), selectors 0 and 1, matching types 0 to 2, and of whole
    /// anchors those that are certificates (RFC 6698 §4.1).
    pub(crate) fn new<'a>(records: impl Iterator<Item = &'a TLSA>) -> Self {
        let mut any = false;
        let mut usable = Vec::new();
        for record in records.take(RECORDS_MAX) {
            any = true;
            usable.extend(Association::new(record));
        }
        match (any, usable.is_empty()) {
            (false, _) => Self::Absent,
            (true, true) => Self::Unusable,
            (true, false) => Self::Records(usable),
        }
    }
}

impl Association {
    fn new(record: &TLSA) -> Option<Self> {
        let is_anchor = match u8::from(record.cert_usage) {
            2 => true,
            3 => false,
            _ => return None,
        };
        let key_only = match u8::from(record.selector) {
            0 => false,
            1 => true,
            _ => return None,
        };
        let data = &record.cert_data;
        let matching = match (u8::from(record.matching), data.len()) {
            (0, 1..) => Matching::Full,
            (1, 32) => Matching::Sha256,
            (2, 64) => Matching::Sha512,
            _ => return None,
        };
        let association = Self { is_anchor, key_only, matching, data: data.clone() };
        let anchor = association.as_anchor();
        anchor.is_none_or(|anchor| is_parsable(&anchor)).then_some(association)
    }

    /// The anchor's certificate, where the record holds all of it.
    fn as_anchor(&self) -> Option<CertificateDer<'_>> {
        let is_whole = self.is_anchor && !self.key_only && self.matching == Matching::Full;
        is_whole.then(|| CertificateDer::from(self.data.as_slice()))
    }

    fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        if !self.key_only {
            return self.matches_octets(certificate);
        }
        let parsed = ParsedCertificate::try_from(certificate);
        parsed.is_ok_and(|parsed| self.matches_octets(&parsed.subject_public_key_info()))
    }

    fn matches_octets(&self, octets: &[u8]) -> bool {
        match self.matching {
            Matching::Full => octets == self.data,
            Matching::Sha256 => digest::digest(&digest::SHA256, octets).as_ref() == self.data,
            Matching::Sha512 => digest::digest(&digest::SHA512, octets).as_ref() == self.data,
        }
    }
}

/// Whether a certificate can be an anchor.
fn is_parsable(certificate: &CertificateDer<'_>) -> bool {
    RootCertStore::empty().add(certificate.clone()).is_ok()
}

/// Whether a server is the one that the records mean: DANE-EE looks at its certificate or key alone, neither name nor dates
/// (RFC 7672 §3.1.1); DANE-TA wants a path to the anchor and one of the names (§3.1.2, §3.2.2).
///
/// # Errors
/// What does not fit.
pub(crate) fn verify(
    associations: &[Association],
    names: &[ServerName<'static>],
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let of_server = |one: &Association| !one.is_anchor && one.matches(end_entity);
    if associations.iter().any(of_server) {
        return Ok(());
    }
    let mut anchors = RootCertStore::empty();
    for association in associations.iter().filter(|one| one.is_anchor) {
        let in_chain = intermediates.iter().take(CHAIN_MAX);
        let matching = in_chain.filter(|certificate| association.matches(certificate)).cloned();
        // One that is no anchor does not keep another record from matching (RFC 7672 §2.2).
        anchors.add_parsable_certificates(matching.chain(association.as_anchor()));
    }
    if anchors.is_empty() {
        return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
    }
    let certificate = ParsedCertificate::try_from(end_entity)?;
    verify_server_cert_signed_by_trust_anchor(
        &certificate,
        &anchors,
        intermediates,
        now,
        algorithms.all,
    )?;
    if names.iter().any(|name| verify_server_name(&certificate, name).is_ok()) {
        Ok(())
    } else {
        Err(Error::InvalidCertificate(CertificateError::NotValidForName))
    }
}

/// TLSA records of one server that are looked at.
const RECORDS_MAX: usize = 16;
/// Certificates of a chain that are looked at for an anchor.
const CHAIN_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(usage: u8, selector: u8, matching: u8, data: &[u8]) -> TLSA {
        TLSA::new(usage.into(), selector.into(), matching.into(), data.to_vec())
    }

    #[test]
    fn only_what_smtp_uses_is_usable() {
        assert_eq!(Tlsa::new([].iter()), Tlsa::Absent);
        for (usage, selector, matching, length, usable) in [
            (3, 1, 1, 32, true),
            (2, 0, 2, 64, true),
            (3, 0, 0, 1, true),
            (0, 1, 1, 32, false),
            (1, 1, 1, 32, false),
            (255, 1, 1, 32, false),
            (3, 2, 1, 32, false),
            (3, 1, 3, 32, false),
            (3, 1, 1, 31, false),
            (3, 1, 2, 32, false),
            (3, 1, 0, 0, false),
            // A whole anchor is a certificate; these octets are none.
            (2, 0, 0, 32, false),
            (2, 1, 0, 32, true),
        ] {
            let tlsa = Tlsa::new([record(usage, selector, matching, &vec![7; length])].iter());
            let expected = matches!(tlsa, Tlsa::Records(_));
            assert_eq!(expected, usable, "{usage} {selector} {matching} {length}");
            assert_ne!(tlsa, Tlsa::Absent);
        }
    }

    #[test]
    fn digest_and_full_match_what_they_are_of() {
        let certificate = CertificateDer::from(b"certificate".to_vec());
        let sha256 = digest::digest(&digest::SHA256, b"certificate");
        for (matching, data) in [(0, &b"certificate"[..]), (1, sha256.as_ref())] {
            let association = Association::new(&record(3, 0, matching, data)).unwrap();
            assert!(association.matches(&certificate));
            assert!(!association.matches(&CertificateDer::from(b"another".to_vec())));
        }
    }
}
