//! A secret key in this process's memory, on aws-lc-rs.

use zeroize::Zeroizing;

use crate::keys::{KeyError, KeyKind, KeyTransport, SecretKey, SignatureScheme};

/// A secret key parsed from PKCS#8; RSA-2048 to RSA-8192, P-256/384/521, Ed25519, X25519.
pub struct SoftwareKey {
    kind: KeyKind,
}

impl SoftwareKey {
    /// Parses a PKCS#8 PrivateKeyInfo (RFC 5958).
    ///
    /// # Errors
    /// [`KeyError::Failed`] when it is none or of a kind that is not supported.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let _ = der;
        todo!()
    }

    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The content of subjectPublicKey's BIT STRING of the matching certificate, to check that they belong together.
    pub fn public_key_bytes(&self) -> &[u8] {
        todo!()
    }
}

impl std::fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SoftwareKey({:?})", self.kind)
    }
}

impl SecretKey for SoftwareKey {
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let _ = (scheme, message);
        todo!()
    }

    fn unwrap(&self, transport: &KeyTransport<'_>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let _ = transport;
        todo!()
    }
}
