//! What every S/MIME peer can be asked for, and the dimensions of the interoperability matrix.

use std::fmt;
use std::path::Path;

use crate::pki::Identity;

/// Another implementation of CMS (RFC 5652). An error says what it cannot do, in its own words.
pub trait Peer {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// A signature over the content: detached, but for `openssl -stream`, which puts the content inside.
    ///
    /// # Errors
    /// What the peer said.
    fn sign(
        &self,
        signer: &Identity,
        scheme: Signing,
        form: Form,
        content: &[u8],
    ) -> Result<Vec<u8>, String>;

    /// Verifies a signature over the content and its signer's path to the root.
    ///
    /// # Errors
    /// What the peer said.
    fn verify(&self, signature: &[u8], content: &[u8], root: &Path) -> Result<(), String>;

    /// Encrypts for one recipient.
    ///
    /// # Errors
    /// What the peer said.
    fn encrypt(
        &self,
        recipient: &Identity,
        transport: Transport,
        cipher: Cipher,
        form: Form,
        plain: &[u8],
    ) -> Result<Vec<u8>, String>;

    /// Decrypts.
    ///
    /// # Errors
    /// What the peer said.
    fn decrypt(&self, recipient: &Identity, sealed: &[u8]) -> Result<Vec<u8>, String>;
}

/// How to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signing {
    /// RSASSA-PKCS1-v1_5, 2048 bits, SHA-256.
    Rsa2048,
    /// RSASSA-PKCS1-v1_5, 3072 bits, SHA-256.
    Rsa3072,
    /// RSASSA-PSS, 2048 bits, SHA-256, salt of 32 bytes.
    RsaPss,
    /// ECDSA on P-256 with SHA-256.
    P256,
    /// Ed25519 (RFC 8419).
    Ed25519,
}

impl Signing {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Rsa2048, Self::Rsa3072, Self::RsaPss, Self::P256, Self::Ed25519];
}

/// How to hand the content key to the recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// RSAES-PKCS1-v1_5.
    RsaPkcs1,
    /// RSAES-OAEP with SHA-256.
    RsaOaep,
    /// Ephemeral-static ECDH on P-256 (RFC 5753).
    EcdhP256,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RsaPkcs1, Self::RsaOaep, Self::EcdhP256];
}

/// How to encrypt the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cipher {
    /// AES-256-CBC in EnvelopedData.
    Cbc,
    /// AES-256-GCM in AuthEnvelopedData (RFC 5084).
    Gcm,
}

impl Cipher {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Cbc, Self::Gcm];
}

/// How to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// BER with indefinite lengths, as streaming writers emit it.
    Ber,
    /// DER.
    Der,
}

impl Form {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Ber, Self::Der];

    /// The form that these bytes have: a constructed encoding with indefinite length is BER.
    pub fn of(cms: &[u8]) -> Self {
        if cms.get(1) == Some(&0x80) { Self::Ber } else { Self::Der }
    }
}

macro_rules! display {
    ($($kind:ident { $($variant:ident: $text:literal),* })*) => { $(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $text),* })
            }
        }
    )* };
}

display! {
    Signing {
        Rsa2048: "rsa-2048", Rsa3072: "rsa-3072", RsaPss: "rsa-pss", P256: "p-256",
        Ed25519: "ed25519"
    }
    Transport { RsaPkcs1: "rsa-pkcs1", RsaOaep: "rsa-oaep", EcdhP256: "ecdh-p256" }
    Cipher { Cbc: "cbc", Gcm: "gcm" }
    Form { Ber: "ber", Der: "der" }
}
