//! A secret key in this process's memory, on aws-lc-rs.
//!
//! In: PKCS#8 (RFC 5958). It is parsed once; every use after that is one operation. The library
//! keeps the key and wipes it. Failures say nothing about their reason. No implicit rejection for
//! PKCS#1 v1.5 here: `crate::cms` substitutes a random key.

use aws_lc_rs::agreement::{self, UnparsedPublicKey, agree};
use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512,
    OaepPrivateDecryptingKey, Pkcs1PrivateDecryptingKey, PrivateDecryptingKey,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA256_ASN1_SIGNING,
    ECDSA_P521_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use zeroize::Zeroizing;

use crate::cms::algorithm::{Algorithm, RSA_ENCRYPTION, RSASSA_PSS, X25519, write};
use crate::cms::element::{INTEGER, NULL, OCTET_STRING, OID, Reader, SEQUENCE, tlv};
use crate::keys::{Digest, KeyError, KeyKind, KeyTransport, SecretKey, SignatureScheme};

/// A secret key parsed from PKCS#8; RSA-2048 to RSA-8192, P-256/384/521, Ed25519, X25519.
pub struct SoftwareKey {
    kind: KeyKind,
    public_key: Vec<u8>,
    key: Key,
}

enum Key {
    Ec {
        signing: Vec<(Digest, EcdsaKeyPair)>,
        agreement: agreement::PrivateKey,
    },
    Ed25519(Ed25519KeyPair),
    Rsa {
        signing: Box<RsaKeyPair>,
        pkcs1: Pkcs1PrivateDecryptingKey,
        oaep: OaepPrivateDecryptingKey,
    },
    X25519(agreement::PrivateKey),
}

impl SoftwareKey {
    /// Parses a PKCS#8 PrivateKeyInfo (RFC 5958).
    ///
    /// # Errors
    /// [`KeyError::Failed`] when it is none or of a kind that is not supported.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        if der.len() > PKCS8_BYTES_MAX {
            return Err(KeyError::Failed);
        }
        let plain = pss_as_rsa(der);
        let der = plain.as_ref().map_or(der, |plain| plain.as_slice());
        if let Ok(signing) = RsaKeyPair::from_pkcs8(der) {
            return Self::rsa(der, signing);
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            let public_key = pair.public_key().as_ref().to_vec();
            return Ok(Self { kind: KeyKind::Ed25519, public_key, key: Key::Ed25519(pair) });
        }
        if let Some(secret) = x25519_secret(der) {
            let secret = agreement::PrivateKey::from_private_key(&agreement::X25519, &secret);
            let secret = secret.map_err(|_| KeyError::Failed)?;
            let public = secret.compute_public_key().map_err(|_| KeyError::Failed)?;
            let public_key = public.as_ref().to_vec();
            return Ok(Self { kind: KeyKind::X25519, public_key, key: Key::X25519(secret) });
        }
        CURVES.iter().find_map(|curve| Self::ec(der, curve)).ok_or(KeyError::Failed)
    }

    fn rsa(der: &[u8], signing: RsaKeyPair) -> Result<Self, KeyError> {
        let open = || PrivateDecryptingKey::from_pkcs8(der).map_err(|_| KeyError::Failed);
        let pkcs1 = Pkcs1PrivateDecryptingKey::new(open()?).map_err(|_| KeyError::Failed)?;
        let oaep = OaepPrivateDecryptingKey::new(open()?).map_err(|_| KeyError::Failed)?;
        let bits = u32::try_from(pkcs1.key_size_bits()).map_err(|_| KeyError::Failed)?;
        let public_key = signing.public_key().as_ref().to_vec();
        let key = Key::Rsa { signing: Box::new(signing), pkcs1, oaep };
        Ok(Self { kind: KeyKind::Rsa { bits }, public_key, key })
    }

    fn ec(der: &[u8], curve: &Curve) -> Option<Self> {
        let agreement = agreement::PrivateKey::from_private_key_der(curve.agreement, der).ok()?;
        let public_key = agreement.compute_public_key().ok()?.as_ref().to_vec();
        // The library signs with one digest a parsed key, and P-521 with three.
        let plain: EcPrivateKeyRfc5915Der<'_> = agreement.as_der().ok()?;
        let signing = curve
            .signing
            .iter()
            .map(|(digest, algorithm)| {
                let pair = EcdsaKeyPair::from_private_key_der(algorithm, plain.as_ref()).ok()?;
                Some((*digest, pair))
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self { kind: curve.kind, public_key, key: Key::Ec { signing, agreement } })
    }

    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The content of subjectPublicKey's BIT STRING of the matching certificate, to check that they
    /// belong together.
    pub fn public_key_bytes(&self) -> &[u8] {
        &self.public_key
    }
}

impl std::fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SoftwareKey({:?})", self.kind)
    }
}

impl SecretKey for SoftwareKey {
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match (&self.key, scheme) {
            (Key::Rsa { signing, .. }, SignatureScheme::RsaPkcs1(digest)) => {
                sign_rsa(signing, pkcs1_encoding(digest)?, message)
            }
            (Key::Rsa { signing, .. }, SignatureScheme::RsaPss(digest)) => {
                sign_rsa(signing, pss_encoding(digest)?, message)
            }
            (Key::Ec { signing, .. }, SignatureScheme::Ecdsa(digest)) => {
                let pair = signing.iter().find(|(known, _)| *known == digest);
                let (_, pair) = pair.ok_or(KeyError::Failed)?;
                let signature = pair.sign(&SystemRandom::new(), message);
                signature.map(|value| value.as_ref().to_vec()).map_err(|_| KeyError::Failed)
            }
            (Key::Ed25519(pair), SignatureScheme::Ed25519) => {
                pair.try_sign(message).map(|v| v.as_ref().to_vec()).map_err(|_| KeyError::Failed)
            }
            _ => Err(KeyError::Failed),
        }
    }

    fn unwrap(&self, transport: &KeyTransport<'_>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        match (&self.key, transport) {
            (Key::Rsa { pkcs1, .. }, KeyTransport::RsaPkcs1 { encrypted_key }) => {
                let mut out = Zeroizing::new(vec![0; pkcs1.min_output_size()]);
                let length = pkcs1.decrypt(encrypted_key, &mut out).map(|plain| plain.len());
                out.truncate(length.map_err(|_| KeyError::Failed)?);
                Ok(out)
            }
            (Key::Rsa { oaep, .. }, KeyTransport::RsaOaep { digest, encrypted_key }) => {
                let algorithm = match digest {
                    Digest::Sha1 => &OAEP_SHA1_MGF1SHA1,
                    Digest::Sha256 => &OAEP_SHA256_MGF1SHA256,
                    Digest::Sha384 => &OAEP_SHA384_MGF1SHA384,
                    Digest::Sha512 => &OAEP_SHA512_MGF1SHA512,
                };
                let mut out = Zeroizing::new(vec![0; oaep.min_output_size()]);
                let plain = oaep.decrypt(algorithm, encrypted_key, &mut out, None);
                let length = plain.map(|plain| plain.len()).map_err(|_| KeyError::Failed)?;
                out.truncate(length);
                Ok(out)
            }
            (
                Key::Ec { agreement, .. } | Key::X25519(agreement),
                KeyTransport::Ecdh { ephemeral },
            ) => {
                let peer = UnparsedPublicKey::new(agreement.algorithm(), *ephemeral);
                agree(agreement, peer, KeyError::Failed, |z| Ok(Zeroizing::new(z.to_vec())))
            }
            _ => Err(KeyError::Failed),
        }
    }
}

/// A curve and what the library calls its uses.
struct Curve {
    kind: KeyKind,
    agreement: &'static agreement::Algorithm,
    signing: &'static [(Digest, &'static EcdsaSigningAlgorithm)],
}

fn sign_rsa(
    pair: &RsaKeyPair,
    encoding: &'static dyn RsaEncoding,
    message: &[u8],
) -> Result<Vec<u8>, KeyError> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), message, &mut signature)
        .map_err(|_| KeyError::Failed)?;
    Ok(signature)
}

fn pkcs1_encoding(digest: Digest) -> Result<&'static dyn RsaEncoding, KeyError> {
    match digest {
        Digest::Sha1 => Err(KeyError::Failed),
        Digest::Sha256 => Ok(&RSA_PKCS1_SHA256),
        Digest::Sha384 => Ok(&RSA_PKCS1_SHA384),
        Digest::Sha512 => Ok(&RSA_PKCS1_SHA512),
    }
}

fn pss_encoding(digest: Digest) -> Result<&'static dyn RsaEncoding, KeyError> {
    match digest {
        Digest::Sha1 => Err(KeyError::Failed),
        Digest::Sha256 => Ok(&RSA_PSS_SHA256),
        Digest::Sha384 => Ok(&RSA_PSS_SHA384),
        Digest::Sha512 => Ok(&RSA_PSS_SHA512),
    }
}

/// A key for RSASSA-PSS alone (RFC 4055 §1.2) as one for all uses, because the library reads no
/// others. What it is used for, the certificate says.
fn pss_as_rsa(der: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut members = Reader::only(der, SEQUENCE).ok()?.reader();
    let version = members.expect(INTEGER).ok()?;
    let is_pss = Algorithm::next(&mut members).ok()?.is(RSASSA_PSS);
    let key = members.expect(OCTET_STRING).ok()?;
    let algorithm = write(RSA_ENCRYPTION, &[NULL, 0]);
    is_pss.then(|| Zeroizing::new(tlv(SEQUENCE, &[version.whole, &algorithm, key.whole])))
}

/// The 32 octets of an X25519 key (RFC 8410 §7); the library does not read them from PKCS#8 itself.
fn x25519_secret(der: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut members = Reader::only(der, SEQUENCE).ok()?.reader();
    members.expect(INTEGER).ok()?;
    let oid = members.expect(SEQUENCE).ok()?.reader().expect(OID).ok()?;
    if oid.body != X25519.as_bytes() {
        return None;
    }
    let outer = members.expect(OCTET_STRING).ok()?;
    let inner = Reader::only(outer.body, OCTET_STRING).ok()?;
    Some(Zeroizing::new(inner.body.to_vec()))
}

const CURVES: [Curve; 3] = [
    Curve {
        kind: KeyKind::P256,
        agreement: &agreement::ECDH_P256,
        signing: &[(Digest::Sha256, &ECDSA_P256_SHA256_ASN1_SIGNING)],
    },
    Curve {
        kind: KeyKind::P384,
        agreement: &agreement::ECDH_P384,
        signing: &[(Digest::Sha384, &ECDSA_P384_SHA384_ASN1_SIGNING)],
    },
    Curve {
        kind: KeyKind::P521,
        agreement: &agreement::ECDH_P521,
        signing: &[
            (Digest::Sha256, &ECDSA_P521_SHA256_ASN1_SIGNING),
            (Digest::Sha384, &ECDSA_P521_SHA384_ASN1_SIGNING),
            (Digest::Sha512, &ECDSA_P521_SHA512_ASN1_SIGNING),
        ],
    },
];

/// Larger keys are not looked at (REQUIREMENTS K4); RSA-8192 takes 5 KiB.
const PKCS8_BYTES_MAX: usize = 64 * 1024;
