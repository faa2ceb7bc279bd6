//! Where our secret keys are: one store today, embedded; what it gives out are handles, never bytes.

use std::sync::Arc;

use sealgate_core::keys::Certificate;

pub(crate) mod embedded;

/// What a secret key is for, by its certificate's key usage (RFC 5280 §4.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPurpose {
    /// Signing and decrypting.
    Both,
    /// Decrypting.
    Encrypt,
    /// Signing.
    Sign,
}

impl KeyPurpose {
    /// What a certificate allows; `None` where it allows neither.
    pub fn of(certificate: &Certificate) -> Option<Self> {
        match (certificate.may_sign(), certificate.may_encrypt()) {
            (true, true) => Some(Self::Both),
            (false, true) => Some(Self::Encrypt),
            (true, false) => Some(Self::Sign),
            (false, false) => None,
        }
    }

    /// The word that the database and `list` show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Encrypt => "encrypt",
            Self::Sign => "sign",
        }
    }
}

/// What is known of a secret key without touching the secret.
#[derive(Clone, Debug)]
pub struct SecretKeyEntry {
    /// Address in lower case, or `@domain`.
    pub owner: String,
    /// `sign`, `encrypt` or `both`.
    pub purpose: String,
    /// The certificate.
    pub certificate: Arc<Certificate>,
    /// Issuers upwards.
    pub chain: Vec<Arc<Certificate>>,
}
