//! A certificate (RFC 5280) with the facts that mail needs, read once.
//!
//! In: DER of at most [`CERTIFICATE_BYTES_MAX`] octets. Out: a cheap-to-clone handle to the bytes
//! and what they say. Names, serial number and public key are kept as the octets they were, because
//! other objects refer to them by those. It judges nothing: whether a certificate is to be believed
//! is `crate::trust`'s affair.

use std::fmt;
use std::sync::{Arc, OnceLock};

use const_oid::ObjectIdentifier;
use der::Decode;

use crate::address::Address;
use crate::cms::CmsError;
use crate::cms::algorithm::{
    Algorithm, EC_PUBLIC_KEY, ED25519, P_256, P_384, P_521, RSA_ENCRYPTION, RSASSA_PSS,
    SMIME_CAPABILITIES, Signature, X25519, signature_of,
};
use crate::cms::element::{
    BIT_STRING, BOOLEAN, CONSTRUCTED_0, CONSTRUCTED_3, Element, IA5_STRING, INTEGER, OCTET_STRING,
    OID, PRIMITIVE_1, Reader, SEQUENCE, SET, UTF8_STRING,
};
use crate::cms::parse_capabilities;
use crate::hex;
use crate::keys::{Capabilities, KeyKind, Timestamp};

/// SHA-256 of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::text(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A parsed certificate.
#[derive(Clone)]
pub struct Certificate {
    facts: Arc<Facts>,
}

impl Certificate {
    /// Parses one DER certificate.
    ///
    /// # Errors
    /// [`CertificateError`] when it is no certificate, has trailing bytes or is larger than the
    /// limit.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(CertificateError("larger than 64 KiB".to_owned()));
        }
        let parsed = x509_cert::Certificate::from_der(der)
            .map_err(|why| CertificateError(format!("it does not parse ({why})")))?;
        let facts = Facts::read(der, parsed.tbs_certificate())
            .map_err(|_| CertificateError("its parts contradict each other".to_owned()))?;
        Ok(Self { facts: Arc::new(facts) })
    }

    /// The bytes it was parsed from.
    pub fn der(&self) -> &[u8] {
        &self.facts.der
    }
    /// SHA-256 of the DER.
    pub fn fingerprint(&self) -> Fingerprint {
        self.facts.fingerprint
    }
    /// The subject's distinguished name as RFC 4514 text.
    pub fn subject(&self) -> &str {
        self.facts.subject.get_or_init(|| name_text(&self.facts.subject_der))
    }
    /// The issuer's distinguished name as RFC 4514 text.
    pub fn issuer(&self) -> &str {
        self.facts.issuer.get_or_init(|| name_text(&self.facts.issuer_der))
    }
    /// The serial number in lower-case hexadecimal.
    pub fn serial(&self) -> &str {
        &self.facts.serial
    }
    /// The issuer's name as DER, for IssuerAndSerialNumber.
    pub fn issuer_der(&self) -> &[u8] {
        &self.facts.issuer_der
    }
    /// The subject's name as DER.
    pub fn subject_der(&self) -> &[u8] {
        &self.facts.subject_der
    }
    /// The serial number's content octets as DER INTEGER has them.
    pub fn serial_bytes(&self) -> &[u8] {
        &self.facts.serial_bytes
    }
    /// The subject key identifier extension.
    pub fn subject_key_identifier(&self) -> Option<&[u8]> {
        self.facts.extensions.subject_key_identifier.as_deref()
    }
    /// SubjectPublicKeyInfo as DER.
    pub fn public_key_info_der(&self) -> &[u8] {
        &self.facts.public_key.info_der
    }
    /// The content of subjectPublicKey's BIT STRING.
    pub fn public_key_bytes(&self) -> &[u8] {
        &self.facts.public_key.bytes
    }
    /// What kind of key it holds.
    pub fn key_kind(&self) -> KeyKind {
        self.facts.public_key.kind
    }
    /// Whether its RSA key is for RSASSA-PSS and nothing else (RFC 4055 §1.2).
    pub fn is_pss_only(&self) -> bool {
        self.facts.public_key.is_pss_only
    }
    /// Digest and least salt of such a key, if it says (RFC 4055 §3.3).
    pub(crate) fn pss_restriction(&self) -> Option<Signature> {
        self.facts.public_key.pss_restriction
    }
    /// Start of validity.
    pub fn not_before(&self) -> Timestamp {
        self.facts.not_before
    }
    /// End of validity.
    pub fn not_after(&self) -> Timestamp {
        self.facts.not_after
    }
    /// Whether that time is within its validity, both ends included (RFC 5280 §4.1.2.5).
    pub fn is_valid_at(&self, time: Timestamp) -> bool {
        (self.not_before()..=self.not_after()).contains(&time)
    }
    /// rfc822Name and SmtpUTF8Mailbox (RFC 8398) entries of subjectAltName; emailAddress of the
    /// subject where there is no such entry (REQUIREMENTS G3). Entries that are no addresses are
    /// left out (G2).
    pub fn addresses(&self) -> &[Address] {
        &self.facts.addresses
    }
    /// Whether key usage allows signing mail: absent, digitalSignature or nonRepudiation (G4).
    pub fn may_sign(&self) -> bool {
        let usage = self.facts.extensions.key_usage;
        self.key_kind() != KeyKind::X25519
            && usage.is_none_or(|bits| bits & (DIGITAL_SIGNATURE | NON_REPUDIATION) != 0)
    }
    /// Whether key usage allows encrypting to it: absent, keyEncipherment (RSA) or keyAgreement
    /// (EC) (G4).
    pub fn may_encrypt(&self) -> bool {
        let needed = match self.key_kind() {
            KeyKind::Rsa { .. } if !self.facts.public_key.is_pss_only => KEY_ENCIPHERMENT,
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 | KeyKind::X25519 => KEY_AGREEMENT,
            _ => return false,
        };
        self.facts.extensions.key_usage.is_none_or(|bits| bits & needed != 0)
    }
    /// Whether extended key usage allows mail: absent, emailProtection or any.
    pub fn is_for_mail(&self) -> bool {
        self.facts.extensions.is_for_mail.unwrap_or(true)
    }
    /// Whether basicConstraints say CA.
    pub fn is_authority(&self) -> bool {
        self.facts.extensions.is_authority
    }
    /// Whether key usage says that it signs certificates.
    pub fn says_it_issues(&self) -> bool {
        self.facts.extensions.key_usage.is_some_and(|bits| bits & KEY_CERT_SIGN != 0)
    }
    /// Whether somebody may trust it as an authority: it says that it is one, or it is a root of version 1, which has no
    /// extension to say so in (RFC 5280 §6.1.4 k leaves it to other means, here who imports it; REQUIREMENTS G1).
    pub fn may_be_anchor(&self) -> bool {
        self.is_authority() || (self.facts.is_version_1 && self.is_self_issued())
    }
    /// Whether issuer and subject are the same name.
    pub fn is_self_issued(&self) -> bool {
        self.issuer_der() == self.subject_der()
    }
    /// The certificate's own SMIMECapabilities extension (RFC 4262).
    pub fn capabilities(&self) -> Option<Capabilities> {
        self.facts.extensions.capabilities
    }
    /// Whether an address is one of its addresses.
    pub fn names(&self, address: &Address) -> bool {
        self.addresses().contains(address)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, {})", self.subject(), self.fingerprint())
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der() == other.der()
    }
}

impl Eq for Certificate {}

/// What a certificate says.
struct Facts {
    der: Box<[u8]>,
    fingerprint: Fingerprint,
    /// Written when asked for: most certificates of a message are never shown.
    subject: OnceLock<String>,
    issuer: OnceLock<String>,
    is_version_1: bool,
    serial: String,
    issuer_der: Box<[u8]>,
    subject_der: Box<[u8]>,
    serial_bytes: Box<[u8]>,
    public_key: PublicKeyInfo,
    not_before: Timestamp,
    not_after: Timestamp,
    addresses: Vec<Address>,
    extensions: Extensions,
}

impl Facts {
    /// Finds the members (RFC 5280 §4.1) in the bytes; that they are well formed the parser has
    /// said already.
    fn read(der: &[u8], parsed: &x509_cert::TbsCertificate) -> Result<Self, CmsError> {
        let mut tbs = Reader::only(der, SEQUENCE)?.reader().expect(SEQUENCE)?.reader();
        tbs.optional(CONSTRUCTED_0)?;
        let serial = tbs.expect(INTEGER)?;
        tbs.expect(SEQUENCE)?;
        let issuer = tbs.expect(SEQUENCE)?;
        tbs.expect(SEQUENCE)?;
        let subject = tbs.expect(SEQUENCE)?;
        let public_key = PublicKeyInfo::read(&tbs.expect(SEQUENCE)?)?;
        let mut extensions = Extensions::default();
        while !tbs.is_empty() {
            let member = tbs.element()?;
            if member.tag == CONSTRUCTED_3 {
                extensions.read(&member)?;
            }
        }
        let addresses = match extensions.mailboxes.take() {
            Some(mailboxes) => mailboxes,
            None => subject_mailboxes(&subject)?,
        };
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        let fingerprint = digest.as_ref().try_into().map_err(|_| CmsError::Malformed)?;
        let seconds = |time: &x509_cert::time::Time| {
            Timestamp(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
        };
        Ok(Self {
            der: der.into(),
            fingerprint: Fingerprint(fingerprint),
            subject: OnceLock::new(),
            issuer: OnceLock::new(),
            is_version_1: parsed.version() == x509_cert::Version::V1,
            serial: hex::text(serial.body),
            issuer_der: issuer.whole.into(),
            subject_der: subject.whole.into(),
            serial_bytes: serial.body.into(),
            public_key,
            not_before: seconds(&parsed.validity().not_before),
            not_after: seconds(&parsed.validity().not_after),
            addresses,
            extensions,
        })
    }
}

/// A distinguished name as RFC 4514 text; the certificate's parser has read it once already.
fn name_text(der: &[u8]) -> String {
    x509_cert::name::Name::from_der(der).map_or_else(|_| String::new(), |name| name.to_string())
}

/// SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
struct PublicKeyInfo {
    info_der: Box<[u8]>,
    bytes: Box<[u8]>,
    kind: KeyKind,
    is_pss_only: bool,
    pss_restriction: Option<Signature>,
}

impl PublicKeyInfo {
    fn read(info: &Element<'_>) -> Result<Self, CmsError> {
        let mut members = info.reader();
        let algorithm = Algorithm::next(&mut members)?;
        let (oid, parameters) = (algorithm.oid, algorithm.parameters);
        // A BIT STRING of whole octets (RFC 5280 §4.1.2.7): none unused.
        let [0, bytes @ ..] = members.expect(BIT_STRING)?.body else {
            return Err(CmsError::Malformed);
        };
        let is_pss_only = algorithm.is(RSASSA_PSS);
        let restriction =
            parameters.filter(|_| is_pss_only).map(|_| signature_of(&algorithm, None));
        let pss_restriction = restriction.and_then(Result::ok);
        let kind = if restriction.is_some_and(|read| read.is_err()) {
            // A restriction that we do not understand cannot be kept.
            KeyKind::Unsupported
        } else if is_pss_only || oid == RSA_ENCRYPTION.as_bytes() {
            rsa_kind(bytes)
        } else if oid == EC_PUBLIC_KEY.as_bytes() {
            let curve = parameters.filter(|curve| curve.tag == OID).map(|curve| curve.body);
            [(P_256, KeyKind::P256), (P_384, KeyKind::P384), (P_521, KeyKind::P521)]
                .into_iter()
                .find(|(known, _)| curve == Some(known.as_bytes()))
                .map_or(KeyKind::Unsupported, |(_, kind)| kind)
        } else if oid == ED25519.as_bytes() {
            KeyKind::Ed25519
        } else if oid == X25519.as_bytes() {
            KeyKind::X25519
        } else {
            KeyKind::Unsupported
        };
        let (info_der, bytes) = (info.whole.into(), bytes.into());
        Ok(Self { info_der, bytes, kind, is_pss_only, pss_restriction })
    }
}

/// The kind of an RSAPublicKey (RFC 8017 appendix A.1.1).
fn rsa_kind(bytes: &[u8]) -> KeyKind {
    let modulus = Reader::only(bytes, SEQUENCE).and_then(|key| key.reader().expect(INTEGER));
    let Ok(modulus) = modulus else { return KeyKind::Unsupported };
    let digits = match modulus.body {
        [0, digits @ ..] => digits,
        digits => digits,
    };
    let Some(first) = digits.first() else { return KeyKind::Unsupported };
    match u32::try_from(digits.len()) {
        Ok(octets) => KeyKind::Rsa { bits: (octets * 8).saturating_sub(first.leading_zeros()) },
        Err(_) => KeyKind::Unsupported,
    }
}

/// The extensions that mail looks at (RFC 5280 §4.2).
#[derive(Default)]
struct Extensions {
    subject_key_identifier: Option<Box<[u8]>>,
    key_usage: Option<u16>,
    is_for_mail: Option<bool>,
    is_authority: bool,
    capabilities: Option<Capabilities>,
    /// Mailboxes of subjectAltName, if it has an entry for mail at all.
    mailboxes: Option<Vec<Address>>,
}

impl Extensions {
    fn read(&mut self, explicit: &Element<'_>) -> Result<(), CmsError> {
        let mut seen: Vec<&[u8]> = Vec::new();
        for extension in Reader::only(explicit.body, SEQUENCE)?.reader() {
            let mut members = extension?.reader();
            let oid = members.expect(OID)?.body;
            members.optional(BOOLEAN)?;
            let value = members.expect(OCTET_STRING)?.body;
            // No extension twice (RFC 5280 §4.2): which one would count?
            if seen.len() >= EXTENSIONS_MAX || seen.contains(&oid) {
                return Err(CmsError::Malformed);
            }
            seen.push(oid);
            self.note(oid, value)?;
        }
        Ok(())
    }

    fn note(&mut self, oid: &[u8], value: &[u8]) -> Result<(), CmsError> {
        if oid == SUBJECT_KEY_IDENTIFIER.as_bytes() {
            self.subject_key_identifier = Some(Reader::only(value, OCTET_STRING)?.body.into());
        } else if oid == KEY_USAGE.as_bytes() {
            let bits = Reader::only(value, BIT_STRING)?.body;
            let first = u16::from(bits.get(1).copied().unwrap_or_default());
            let second = u16::from(bits.get(2).copied().unwrap_or_default());
            self.key_usage = Some(first << 8 | second);
        } else if oid == EXTENDED_KEY_USAGE.as_bytes() {
            let mut allows = false;
            for purpose in Reader::only(value, SEQUENCE)?.reader() {
                let purpose = purpose?.body;
                allows |= purpose == EMAIL_PROTECTION.as_bytes() || purpose == ANY_USAGE.as_bytes();
            }
            self.is_for_mail = Some(allows);
        } else if oid == BASIC_CONSTRAINTS.as_bytes() {
            let flag = Reader::only(value, SEQUENCE)?.reader().optional(BOOLEAN)?;
            self.is_authority = flag.is_some_and(|flag| flag.body != [0]);
        } else if oid == SMIME_CAPABILITIES.as_bytes() {
            // Advice only: a strange list is no reason to refuse the certificate.
            self.capabilities = parse_capabilities(value).ok();
        } else if oid == SUBJECT_ALT_NAME.as_bytes() {
            self.mailboxes = alternative_mailboxes(&Reader::only(value, SEQUENCE)?)?;
        }
        Ok(())
    }
}

/// rfc822Name and SmtpUTF8Mailbox of GeneralNames; none if there is no entry of these kinds.
fn alternative_mailboxes(names: &Element<'_>) -> Result<Option<Vec<Address>>, CmsError> {
    let mut mailboxes: Option<Vec<Address>> = None;
    for name in names.reader() {
        let name = name?;
        let text = match name.tag {
            PRIMITIVE_1 => Some(name.body),
            // OtherName { type-id, [0] EXPLICIT value } (RFC 8398 §3).
            CONSTRUCTED_0 => {
                let mut members = name.reader();
                if members.expect(OID)?.body == SMTP_UTF8_MAILBOX.as_bytes() {
                    let explicit = members.expect(CONSTRUCTED_0)?;
                    Some(Reader::only(explicit.body, UTF8_STRING)?.body)
                } else {
                    None
                }
            }
            _ => None,
        };
        let Some(text) = text else { continue };
        let found = mailboxes.get_or_insert_default();
        let is_ascii_kind = name.tag == PRIMITIVE_1;
        if found.len() < MAILBOXES_MAX
            && let Some(address) = mailbox(text, is_ascii_kind)
        {
            found.push(address);
        }
    }
    Ok(mailboxes)
}

/// emailAddress attributes of a name (RFC 5280 §4.1.2.6, a legacy place).
fn subject_mailboxes(name: &Element<'_>) -> Result<Vec<Address>, CmsError> {
    let mut mailboxes = Vec::new();
    for set in name.reader() {
        let set = set?;
        if set.tag != SET {
            return Err(CmsError::Malformed);
        }
        for attribute in set.reader() {
            let mut members = attribute?.reader();
            if members.expect(OID)?.body != EMAIL_ADDRESS.as_bytes() {
                continue;
            }
            let value = members.element()?;
            // RFC 2985 §5.2.1 has IA5String. Others write UTF8String; in any other kind of string no constraint of names is
            // held against it.
            if matches!(value.tag, IA5_STRING | UTF8_STRING)
                && mailboxes.len() < MAILBOXES_MAX
                && let Some(address) = mailbox(value.body, true)
            {
                mailboxes.push(address);
            }
        }
    }
    Ok(mailboxes)
}

/// One address; quoted forms and everything that is no plain address are no match (G2).
fn mailbox(text: &[u8], ascii: bool) -> Option<Address> {
    let text = std::str::from_utf8(text).ok()?;
    if (ascii && !text.is_ascii()) || text.contains(['"', '\\']) {
        return None;
    }
    Address::parse(text).ok()
}

/// Not a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateError(pub String);

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a usable certificate: {}", self.0)
    }
}

impl std::error::Error for CertificateError {}

/// Certificates larger than this are not looked at (as REQUIREMENTS K4 for keys).
pub(crate) const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;
/// Extensions that are read at most; more is no certificate for mail.
const EXTENSIONS_MAX: usize = 64;
/// Addresses that are kept at most.
const MAILBOXES_MAX: usize = 100;

// Bits of KeyUsage as its first two octets have them (RFC 5280 §4.2.1.3).
const DIGITAL_SIGNATURE: u16 = 0x8000;
const KEY_CERT_SIGN: u16 = 0x0400;
const NON_REPUDIATION: u16 = 0x4000;
const KEY_ENCIPHERMENT: u16 = 0x2000;
const KEY_AGREEMENT: u16 = 0x0800;

// RFC 5280 §4.2.1, RFC 8398 §3, RFC 2985 §5.2.1.
const SUBJECT_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const ANY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
const EMAIL_PROTECTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.4");
const SMTP_UTF8_MAILBOX: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.9");
const EMAIL_ADDRESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");
