//! A certificate (RFC 5280) with the facts that mail needs, read once.

use std::fmt;
use std::sync::Arc;

use crate::address::Address;
use crate::keys::{Capabilities, KeyKind, Timestamp};

/// SHA-256 of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A parsed certificate.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: Arc<[u8]>,
}

impl Certificate {
    /// Parses one DER certificate.
    ///
    /// # Errors
    /// [`CertificateError`] when it is no certificate, has trailing bytes or is larger than the limit.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let _ = der;
        todo!()
    }

    /// The bytes it was parsed from.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
    /// SHA-256 of the DER.
    pub fn fingerprint(&self) -> Fingerprint {
        todo!()
    }
    /// The subject's distinguished name as RFC 4514 text.
    pub fn subject(&self) -> &str {
        todo!()
    }
    /// The issuer's distinguished name as RFC 4514 text.
    pub fn issuer(&self) -> &str {
        todo!()
    }
    /// The serial number in lower-case hexadecimal.
    pub fn serial(&self) -> &str {
        todo!()
    }
    /// The issuer's name as DER, for IssuerAndSerialNumber.
    pub fn issuer_der(&self) -> &[u8] {
        todo!()
    }
    /// The subject's name as DER.
    pub fn subject_der(&self) -> &[u8] {
        todo!()
    }
    /// The serial number's content octets as DER INTEGER has them.
    pub fn serial_bytes(&self) -> &[u8] {
        todo!()
    }
    /// The subject key identifier extension.
    pub fn subject_key_identifier(&self) -> Option<&[u8]> {
        todo!()
    }
    /// SubjectPublicKeyInfo as DER.
    pub fn public_key_info_der(&self) -> &[u8] {
        todo!()
    }
    /// The content of subjectPublicKey's BIT STRING.
    pub fn public_key_bytes(&self) -> &[u8] {
        todo!()
    }
    /// What kind of key it holds.
    pub fn key_kind(&self) -> KeyKind {
        todo!()
    }
    /// Start of validity.
    pub fn not_before(&self) -> Timestamp {
        todo!()
    }
    /// End of validity.
    pub fn not_after(&self) -> Timestamp {
        todo!()
    }
    /// rfc822Name and SmtpUTF8Mailbox (RFC 8398) entries of subjectAltName; emailAddress of the subject where
    /// there is no such entry (REQUIREMENTS G3). Entries that are no addresses are left out (G2).
    pub fn addresses(&self) -> &[Address] {
        todo!()
    }
    /// Whether key usage allows signing mail: absent, digitalSignature or nonRepudiation (G4).
    pub fn may_sign(&self) -> bool {
        todo!()
    }
    /// Whether key usage allows encrypting to it: absent, keyEncipherment (RSA) or keyAgreement (EC) (G4).
    pub fn may_encrypt(&self) -> bool {
        todo!()
    }
    /// Whether extended key usage allows mail: absent, emailProtection or any.
    pub fn is_for_mail(&self) -> bool {
        todo!()
    }
    /// Whether basicConstraints say CA.
    pub fn is_authority(&self) -> bool {
        todo!()
    }
    /// Whether issuer and subject are the same name.
    pub fn is_self_issued(&self) -> bool {
        self.issuer_der() == self.subject_der()
    }
    /// The certificate's own SMIMECapabilities extension (RFC 4262).
    pub fn capabilities(&self) -> Option<Capabilities> {
        todo!()
    }
    /// Whether an address is one of its addresses.
    pub fn names(&self, address: &Address) -> bool {
        self.addresses().contains(address)
    }
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
