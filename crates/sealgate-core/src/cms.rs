//! The Cryptographic Message Syntax (RFC 5652, RFC 5083) as mail uses it.
//!
//! In: the bytes of a ContentInfo, BER or DER, as they came out of a mail body. Out: what was
//! signed and by whom, what was encrypted and to whom; and the other way round, DER. Everything
//! that comes in goes through [`transcode`] first and is read as DER from there on. Cryptography is
//! aws-lc-rs behind [`crate::keys::SecretKey`].
//!
//! It knows no MIME, no trust and no policy: whether a certificate may be believed is
//! `crate::trust`'s affair, and which algorithm for whom the caller's.

use std::fmt;

use crate::keys::KeyError;

pub(crate) mod algorithm;
mod capabilities;
mod content_cipher;
mod content_info;
pub(crate) mod element;
mod encrypt;
mod enveloped_data;
mod key_agreement;
mod known_certificates;
mod recipient;
mod sign;
mod signature;
mod signed_attributes;
mod signed_data;
#[cfg(test)]
pub(crate) mod splicing;
pub mod transcode;

pub use algorithm::ContentCipher;
pub use capabilities::parse_capabilities;
pub use content_info::{ContentKind, content_kind};
pub use encrypt::{KeyWrap, encrypt, key_wrap_for};
pub use enveloped_data::{Access, EnvelopedData, OpenFault};
pub use sign::{Signing, default_scheme, sign_detached, signature_name};
pub use signed_data::{CERTIFICATES_MAX, CRLS_MAX, SignatureFault, SignedData, SignerInfo};

/// Random bytes, for boundaries.
///
/// # Errors
/// [`KeyError::Failed`] when the generator gives none.
pub fn random_bytes() -> Result<[u8; 16], KeyError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::Failed)?;
    Ok(bytes)
}

/// Why a CMS object could not be read or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CmsError {
    /// It does not parse or contradicts itself.
    Malformed,
    /// Something has more members, or is deeper, than the limit.
    OverLimit,
    /// Well formed, but of an algorithm, version or type that is not supported; or a key that
    /// cannot be encrypted to.
    Unsupported,
}

impl fmt::Display for CmsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed CMS object",
            Self::OverLimit => "CMS object over a limit",
            Self::Unsupported => "CMS object of an unsupported kind",
        })
    }
}

impl std::error::Error for CmsError {}
