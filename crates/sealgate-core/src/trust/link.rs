//! A certificate as a link of a path: parsed once, with what building and judging a path asks of
//! it.
//!
//! Lenient as certval's own reading is (RFC 5280 profile checks of serial numbers are not made
//! here): what is wrong with a certificate is found when the path is validated.

use certval::{ExtensionProcessing, PDVCertificate, PDVExtension};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912;
use der::{Decode, Encode};
use x509_cert::Version;
use x509_cert::ext::pkix::KeyUsage;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use crate::keys::{Certificate, Fingerprint};
use crate::trust::Purpose;
use crate::trust::signature::{KeyFitness, Signed, fitness_of};

/// A parsed certificate.
pub(super) struct Link {
    certificate: PDVCertificate,
    fingerprint: Fingerprint,
    subject_fold: String,
    issuer_fold: String,
    tbs: Vec<u8>,
    key: Vec<u8>,
}

impl Link {
    pub(super) fn parse(certificate: &Certificate) -> Option<Self> {
        Self::parse_der(certificate.der(), certificate.fingerprint())
    }

    pub(super) fn parse_der(der: &[u8], fingerprint: Fingerprint) -> Option<Self> {
        let certificate = PDVCertificate::try_from(der).ok()?;
        let tbs = certval::DeferDecodeSigned::from_der(der).ok()?.tbs_field;
        let fields = certificate.decoded().tbs_certificate();
        let subject_fold = fold(fields.subject());
        let issuer_fold = fold(fields.issuer());
        let key = fields.subject_public_key_info().to_der().ok()?;
        Some(Self { certificate, fingerprint, subject_fold, issuer_fold, tbs, key })
    }

    /// certval's form of it.
    pub(super) fn certificate(&self) -> &PDVCertificate {
        &self.certificate
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn issuer(&self) -> &Name {
        self.certificate.decoded().tbs_certificate().issuer()
    }

    pub(super) fn subject(&self) -> &Name {
        self.certificate.decoded().tbs_certificate().subject()
    }

    /// The subject folded, equal for all names that RFC 5280 §7.1 calls equal.
    pub(super) fn subject_fold(&self) -> &str {
        &self.subject_fold
    }

    pub(super) fn issuer_fold(&self) -> &str {
        &self.issuer_fold
    }

    pub(super) fn serial(&self) -> &[u8] {
        self.certificate.decoded().tbs_certificate().serial_number().as_bytes()
    }

    /// First and last second of validity.
    pub(super) fn validity(&self) -> (i64, i64) {
        let validity = self.certificate.decoded().tbs_certificate().validity();
        (seconds(&validity.not_before), seconds(&validity.not_after))
    }

    pub(super) fn signed(&self) -> Signed<'_> {
        let decoded = self.certificate.decoded();
        Signed {
            message: &self.tbs,
            algorithm: decoded.signature_algorithm(),
            signature: decoded.signature(),
        }
    }

    pub(super) fn key(&self) -> &SubjectPublicKeyInfoOwned {
        self.certificate.decoded().tbs_certificate().subject_public_key_info()
    }

    pub(super) fn fitness(&self) -> KeyFitness {
        fitness_of(self.key())
    }

    /// Whether two certificates are of the same authority: the same name with the same key.
    pub(super) fn is_same_authority(&self, other: &Self) -> bool {
        self.key == other.key && self.subject_fold == other.subject_fold
    }

    /// Whether it may issue certificates as an intermediate (RFC 5280 §6.1.4 k, n: keyCertSign
    /// where there is a key usage). It keeps certificates of people out of the search, too.
    pub(super) fn may_issue(&self) -> bool {
        let signs = self.key_usage().map(|usage| usage.key_cert_sign());
        self.says_authority() && signs.unwrap_or_else(|| !self.has(rfc5912::ID_CE_KEY_USAGE))
    }

    /// Whether it may issue as an anchor. What the administrator imports to trust one person must
    /// not become an authority by that: without basicConstraints only a version 1 certificate
    /// (REQUIREMENTS G1) or one with keyCertSign can issue.
    pub(super) fn may_issue_as_anchor(&self) -> bool {
        let signs = self.key_usage().map(|usage| usage.key_cert_sign());
        match self.extension(rfc5912::ID_CE_BASIC_CONSTRAINTS) {
            Some(PDVExtension::BasicConstraints(constraints)) => {
                constraints.ca && signs != Some(false)
            }
            _ => signs.unwrap_or_else(|| {
                self.certificate.decoded().tbs_certificate().version() == Version::V1
            }),
        }
    }

    pub(super) fn says_authority(&self) -> bool {
        matches!(
            self.extension(rfc5912::ID_CE_BASIC_CONSTRAINTS),
            Some(PDVExtension::BasicConstraints(constraints)) if constraints.ca
        )
    }

    /// Whether it may sign CRLs (RFC 5280 §6.3.3 f).
    pub(super) fn may_sign_crls(&self) -> bool {
        self.key_usage().is_none_or(|usage| usage.crl_sign())
    }

    /// Whether extended key usage is absent or holds emailProtection or any (RFC 8550 §4.4.4).
    pub(super) fn is_for_mail(&self) -> bool {
        match self.extension(rfc5912::ID_CE_EXT_KEY_USAGE) {
            Some(PDVExtension::ExtendedKeyUsage(usages)) => usages.0.iter().any(|usage| {
                matches!(*usage, rfc5912::ID_KP_EMAIL_PROTECTION | rfc5912::ANY_EXTENDED_KEY_USAGE)
            }),
            _ => !self.has(rfc5912::ID_CE_EXT_KEY_USAGE),
        }
    }

    /// Whether key, key usage and extended key usage allow the purpose (RFC 8550 §4.4.2,
    /// REQUIREMENTS G4).
    pub(super) fn permits(&self, purpose: Purpose) -> bool {
        if !self.is_for_mail() {
            return false;
        }
        let usage = self.key_usage();
        if usage.is_none() && self.has(rfc5912::ID_CE_KEY_USAGE) {
            return false;
        }
        let allows = |asked: fn(&KeyUsage) -> bool| usage.is_none_or(asked);
        match (purpose, self.fitness()) {
            (Purpose::Sign, KeyFitness::X25519) | (Purpose::Encrypt, KeyFitness::Ed25519) => false,
            (Purpose::Sign, _) => {
                allows(|usage| usage.digital_signature() || usage.non_repudiation())
            }
            (Purpose::Encrypt, KeyFitness::Nist | KeyFitness::X25519) => {
                allows(KeyUsage::key_agreement)
            }
            (Purpose::Encrypt, _) => allows(KeyUsage::key_encipherment),
        }
    }

    /// How well an issuer's key identifier fits: 0 as named, 1 not said, 2 another.
    pub(super) fn distance_to_issuer(&self, issuer: &Self) -> u8 {
        let named = match self.extension(rfc5912::ID_CE_AUTHORITY_KEY_IDENTIFIER) {
            Some(PDVExtension::AuthorityKeyIdentifier(named)) => named.key_identifier.as_ref(),
            _ => None,
        };
        match (named, issuer.key_identifier()) {
            (Some(named), Some(own)) if named.as_bytes() == own => 0,
            (Some(_), Some(_)) => 2,
            _ => 1,
        }
    }

    /// What it calls its own key (RFC 5280 §4.2.1.2).
    pub(super) fn key_identifier(&self) -> Option<&[u8]> {
        match self.extension(rfc5912::ID_CE_SUBJECT_KEY_IDENTIFIER) {
            Some(PDVExtension::SubjectKeyIdentifier(own)) => Some(own.0.as_bytes()),
            _ => None,
        }
    }

    /// Whether a name of it is an internationalised mailbox (RFC 9598).
    pub(super) fn has_smtp_utf8_mailbox(&self) -> bool {
        self.alternative_names().iter().any(|name| {
            matches!(name, GeneralName::OtherName(other) if other.type_id == ON_SMTP_UTF8_MAILBOX)
        })
    }

    /// Whether it has alternative names that constraints cannot be held against, because they are not read whole.
    pub(super) fn has_unreadable_names(&self) -> bool {
        self.has(rfc5912::ID_CE_SUBJECT_ALT_NAME)
            && self.extension(rfc5912::ID_CE_SUBJECT_ALT_NAME).is_none()
    }

    pub(super) fn alternative_names(&self) -> &[GeneralName] {
        match self.extension(rfc5912::ID_CE_SUBJECT_ALT_NAME) {
            Some(PDVExtension::SubjectAltName(names)) => &names.0,
            _ => &[],
        }
    }

    /// Who issues CRLs for it in its issuer's place (RFC 5280 §4.2.1.13).
    pub(super) fn crl_issuers(&self) -> impl Iterator<Item = &Name> {
        let points = match self.extension(rfc5912::ID_CE_CRL_DISTRIBUTION_POINTS) {
            Some(PDVExtension::CrlDistributionPoints(points)) => Some(&points.0),
            _ => None,
        };
        points
            .into_iter()
            .flatten()
            .filter_map(|point| point.crl_issuer.as_ref())
            .flatten()
            .filter_map(|name| match name {
                GeneralName::DirectoryName(name) => Some(name),
                _ => None,
            })
    }

    /// The constraints it puts on the names below it, permitted and excluded.
    pub(super) fn constraints(&self) -> impl Iterator<Item = &GeneralName> {
        let constraints = match self.extension(rfc5912::ID_CE_NAME_CONSTRAINTS) {
            Some(PDVExtension::NameConstraints(constraints)) => Some(constraints),
            _ => None,
        };
        constraints
            .into_iter()
            .flat_map(|all| [all.permitted_subtrees.as_ref(), all.excluded_subtrees.as_ref()])
            .flatten()
            .flatten()
            .map(|subtree| &subtree.base)
    }

    pub(super) fn extension(&self, id: ObjectIdentifier) -> Option<&PDVExtension> {
        self.certificate.get_extension(&id).ok().flatten()
    }

    fn key_usage(&self) -> Option<&KeyUsage> {
        match self.extension(rfc5912::ID_CE_KEY_USAGE) {
            Some(PDVExtension::KeyUsage(usage)) => Some(usage),
            _ => None,
        }
    }

    /// Whether an extension is there at all, be it readable or not.
    fn has(&self, id: ObjectIdentifier) -> bool {
        self.certificate
            .decoded()
            .tbs_certificate()
            .extensions()
            .is_some_and(|all| all.iter().any(|extension| extension.extn_id == id))
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.fingerprint)
    }
}

/// A name in a form that is equal for all names that RFC 5280 §7.1 calls equal, and for a few more:
/// certval compares exactly what this lets through.
pub(super) fn fold(name: &Name) -> String {
    name.to_string()
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '\\')
        .flat_map(char::to_lowercase)
        .collect()
}

/// Seconds since 1970; the crate knows no earlier time.
pub(super) fn seconds(time: &x509_cert::time::Time) -> i64 {
    i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

/// id-on-SmtpUTF8Mailbox (RFC 9598 §3).
const ON_SMTP_UTF8_MAILBOX: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.9");
