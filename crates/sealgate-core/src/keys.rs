//! Keys and certificates as the data processor sees them; where they are kept is not its affair.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::address::Address;

mod certificate;
mod software;

pub use certificate::{Certificate, CertificateError, Fingerprint};
pub use software::SoftwareKey;

/// Seconds since 1970-01-01T00:00:00Z, without leap seconds. The core never reads a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// A handle to a secret key: it signs and unwraps and never shows its bytes. It may be remote: calls block, so the
/// relay makes them on bounded crypto threads.
pub trait SecretKey: Send + Sync + fmt::Debug {
    /// Signs a message (not a digest of it) under the scheme.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`] when the key's keeper does not answer, [`KeyError::Failed`] when it refuses.
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// Recovers a content-encryption key (RSA) or the shared secret Z (ECDH, RFC 5753 §7.1).
    ///
    /// # Errors
    /// [`KeyError::Unavailable`] as above; [`KeyError::Failed`] for every reason that lies in the ciphertext.
    fn unwrap(&self, transport: &KeyTransport<'_>) -> Result<Zeroizing<Vec<u8>>, KeyError>;

    /// Whether the key's keeper has said that it has the key no more: whoever keeps this handle asks for another.
    fn is_gone(&self) -> bool {
        false
    }
}

/// Why a secret key operation gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// The operation failed; said without a reason, because the reason is an oracle.
    Failed,
    /// The key's keeper is away: try again later.
    Unavailable(String),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str("the key operation failed"),
            Self::Unavailable(why) => write!(f, "the key's keeper is away: {why}"),
        }
    }
}

impl std::error::Error for KeyError {}

/// What a secret key signs with (RFC 8551 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignatureScheme {
    /// ECDSA over the key's own curve, DER-encoded.
    Ecdsa(Digest),
    /// Pure Ed25519 (RFC 8419).
    Ed25519,
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(Digest),
    /// RSASSA-PSS, MGF1 with the same digest, salt as long as the digest (RFC 4056).
    RsaPss(Digest),
}

/// Message digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Digest {
    /// SHA-1: only for verifying, and then reported as weak.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// What a secret key is asked to unwrap.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum KeyTransport<'a> {
    /// ECDH with the ephemeral public key, an uncompressed point on the key's curve (X25519: 32 bytes).
    Ecdh {
        /// The sender's ephemeral public key.
        ephemeral: &'a [u8],
    },
    /// RSAES-OAEP with an empty label, MGF1 with the same digest.
    RsaOaep {
        /// The digest of OAEP and of its MGF1.
        digest: Digest,
        /// The RSA ciphertext.
        encrypted_key: &'a [u8],
    },
    /// RSAES-PKCS1-v1_5. A padding failure comes back as [`KeyError::Failed`]; `crate::cms` substitutes a random key.
    RsaPkcs1 {
        /// The RSA ciphertext.
        encrypted_key: &'a [u8],
    },
}

/// Bits of an RSA modulus that is used for anything (REQUIREMENTS K5).
pub(crate) const RSA_BITS_MAX: u32 = 8192;

/// The kind of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// Ed25519.
    Ed25519,
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
    /// RSA with the modulus length in bits.
    Rsa {
        /// Modulus length.
        bits: u32,
    },
    /// Anything else (DSA, brainpool, ...): seen, not used.
    Unsupported,
    /// X25519.
    X25519,
}

/// One of our secret keys with its certificate and the chain above it.
#[derive(Clone, Debug)]
pub struct OwnKey {
    /// The address that the key is for; for a domain key the local part is empty in the store and this is `None`.
    pub address: Option<Address>,
    /// The certificate.
    pub certificate: Arc<Certificate>,
    /// Issuers upwards, without the root.
    pub chain: Vec<Arc<Certificate>>,
    /// The handle.
    pub secret: Arc<dyn SecretKey>,
    /// Not so once it was revoked: it decrypts what is old then, and nothing new is encrypted to it.
    pub is_active: bool,
}

/// A correspondent's certificate: a candidate that must still be validated.
#[derive(Clone, Debug)]
pub struct PublicKey {
    /// The certificate.
    pub certificate: Arc<Certificate>,
    /// Certificates that may help to build its path.
    pub intermediates: Vec<Arc<Certificate>>,
    /// What the correspondent's software was seen to read (RFC 8551 §2.5.2), learned from its signed mail.
    pub capabilities: Option<Capabilities>,
    /// Pinned by the administrator (`public-key import`): trusted without a path to an anchor, still
    /// bound to its address, usage, validity and minimum size.
    pub pinned: bool,
    /// It is of the whole domain: encrypted to where the mailbox has none that can be used, and its signature is the domain's.
    pub of_domain: bool,
}

/// The SMIMECapabilities (RFC 8551 §2.5.2, RFC 4262) that matter to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// AES-128-GCM in AuthEnvelopedData.
    pub aes_128_gcm: bool,
    /// AES-256-CBC.
    pub aes_256_cbc: bool,
    /// AES-256-GCM in AuthEnvelopedData (RFC 5084).
    pub aes_256_gcm: bool,
    /// RSAES-OAEP (RFC 3560).
    pub rsa_oaep: bool,
}

/// A key store gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupError(pub String);

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key look-up failed: {}", self.0)
    }
}

impl std::error::Error for LookupError {}
