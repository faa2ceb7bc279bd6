//! A secret key in a token: signs and unwraps there.
//!
//! Messages are hashed here and the digests signed there, because that is what most tokens have. The handle keeps label
//! and id, so that it outlives the removal of the token, and the certificate, so that it never becomes another key's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest;
use cryptoki::error::Error;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::types::Ulong;
use der::asn1::UintRef;
use der::{Encode, Sequence};
use sealgate_core::keys::{
    Certificate, Digest, KeyError, KeyKind, KeyTransport, SecretKey, SignatureScheme,
};
use zeroize::Zeroizing;

use super::connection::Here;
use super::fault::{Fault, is_ambiguous, is_incapable, is_stale_handle, is_unknown_mechanism};
use super::module::lock;
use super::oaep;
use super::objects::{KeyName, key_object};
use super::store::{CALL_PATIENCE, Store};

/// A handle to a key of a token.
#[derive(Debug)]
pub(super) struct TokenKey {
    pub(super) store: Arc<Store>,
    pub(super) name: KeyName,
    pub(super) kind: KeyKind,
    pub(super) certificate: Arc<Certificate>,
    /// The object's handle and the generation that it is good in.
    pub(super) object: Arc<Mutex<Option<(u64, ObjectHandle)>>>,
    pub(super) is_gone: AtomicBool,
}

impl TokenKey {
    /// Does something with the key's object on a thread of the token.
    fn with_object<T: Send + 'static>(
        &self,
        work: impl Fn(&Here<'_>, ObjectHandle) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Fault> {
        let name = self.name.clone();
        let certificate = Arc::clone(&self.certificate);
        let known = Arc::clone(&self.object);
        let result = self.store.call(CALL_PATIENCE, move |connection, own| {
            connection.run(own, |here| {
                let object = lock(&known).filter(|(generation, _)| *generation == here.generation);
                if let Some((_, object)) = object {
                    match work(here, object) {
                        Err(error) if is_stale_handle(&error) => {}
                        result => return Ok(result?),
                    }
                }
                // What is refused here says nothing of what the key is to be used on.
                let object = key_object(here, &name, &certificate)
                    .map_err(|fault| here.connection.unavailable(fault))?;
                *lock(&known) = Some((here.generation, object));
                Ok(work(here, object)?)
            })
        });
        if matches!(result, Err(Fault::Gone(_))) {
            self.is_gone.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl SecretKey for TokenKey {
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let kind = self.kind;
        let prepared = Prepared::new(kind, scheme, message).ok_or(KeyError::Failed)?;
        let result = self.with_object(move |here, object| sign(here, object, kind, &prepared));
        result.map_err(|fault| {
            if let Fault::Incapable(why) | Fault::Refused(why) = &fault {
                let label = self.name.label_text();
                tracing::warn!(label, ?scheme, why, "the token does not sign");
            }
            fault.into_key_error()
        })
    }

    fn unwrap(&self, transport: &KeyTransport<'_>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let kind = self.kind;
        let request = Request::new(transport);
        let result = self.with_object(move |here, object| unwrap(here, object, kind, &request));
        result.map_err(Fault::into_key_error).and_then(|plain| plain.ok_or(KeyError::Failed))
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

/// What is given to a token to sign.
#[derive(Debug)]
pub(super) struct Prepared {
    scheme: SignatureScheme,
    input: Vec<u8>,
}

impl Prepared {
    /// `None` where a key of this kind has no such scheme.
    pub(super) fn new(kind: KeyKind, scheme: SignatureScheme, message: &[u8]) -> Option<Self> {
        let hash = |digest| digest::digest(algorithm(digest), message).as_ref().to_vec();
        let input = match (kind, scheme) {
            (KeyKind::Rsa { .. }, SignatureScheme::RsaPkcs1(digest)) => {
                [digest_info(digest)?, &hash(digest)].concat()
            }
            (KeyKind::Rsa { .. }, SignatureScheme::RsaPss(digest)) => hash(digest),
            (KeyKind::P256 | KeyKind::P384 | KeyKind::P521, SignatureScheme::Ecdsa(digest)) => {
                let mut value = hash(digest);
                // FIPS 186-5 §6.4.1: the leftmost bits, where it is longer than the curve's order.
                value.truncate(field_length(kind));
                value
            }
            (KeyKind::Ed25519, SignatureScheme::Ed25519) => message.to_vec(),
            _ => return None,
        };
        Some(Self { scheme, input })
    }
}

/// Signs in the token.
pub(super) fn sign(
    here: &Here<'_>,
    object: ObjectHandle,
    kind: KeyKind,
    prepared: &Prepared,
) -> Result<Vec<u8>, Error> {
    let mechanism = match prepared.scheme {
        SignatureScheme::RsaPkcs1(_) => Mechanism::RsaPkcs,
        SignatureScheme::RsaPss(digest) => {
            let (hash_alg, mgf) = mechanisms(digest);
            let s_len = Ulong::try_from(algorithm(digest).output_len())?;
            Mechanism::RsaPkcsPss(PkcsPssParams { hash_alg, mgf, s_len })
        }
        SignatureScheme::Ecdsa(_) => Mechanism::Ecdsa,
        SignatureScheme::Ed25519 => {
            Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519))
        }
        _ => return Err(Error::NotSupported),
    };
    let signature = here.session.sign(&mechanism, object, &prepared.input)?;
    match prepared.scheme {
        SignatureScheme::Ecdsa(_) => {
            ecdsa_der(&signature, field_length(kind)).ok_or(Error::InvalidValue)
        }
        SignatureScheme::RsaPkcs1(_) | SignatureScheme::RsaPss(_) => {
            Ok(left_padded(&signature, kind))
        }
        _ => Ok(signature),
    }
}

/// [`KeyTransport`] that can go to another thread.
#[derive(Debug)]
pub(super) enum Request {
    Ecdh { ephemeral: Vec<u8> },
    RsaOaep { digest: Digest, encrypted_key: Vec<u8> },
    RsaPkcs1 { encrypted_key: Vec<u8> },
    Unknown,
}

impl Request {
    pub(super) fn new(transport: &KeyTransport<'_>) -> Self {
        match *transport {
            KeyTransport::Ecdh { ephemeral } => Self::Ecdh { ephemeral: ephemeral.to_vec() },
            KeyTransport::RsaOaep { digest, encrypted_key } => {
                Self::RsaOaep { digest, encrypted_key: encrypted_key.to_vec() }
            }
            KeyTransport::RsaPkcs1 { encrypted_key } => {
                Self::RsaPkcs1 { encrypted_key: encrypted_key.to_vec() }
            }
            _ => Self::Unknown,
        }
    }
}

/// Unwraps in the token; `None` where the token is there and has no result. What may be the token's own trouble, and of the
/// moment, is tried twice: an intact mail must not be refused for it.
pub(super) fn unwrap(
    here: &Here<'_>,
    object: ObjectHandle,
    kind: KeyKind,
    request: &Request,
) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    // Asked always, so that its time does not tell good padding from bad.
    let is_there = || here.confirm().is_ok() && here.answers();
    let mut result = unwrap_once(here, object, kind, request);
    let mut was_there = is_there();
    if result.as_ref().is_err_and(is_ambiguous) && was_there {
        // What this takes longer the clock of the relay's replies hides: a tick is far above it.
        result = unwrap_once(here, object, kind, request);
        was_there = is_there();
    }
    match result {
        Err(error) if is_ambiguous(&error) && was_there => Ok(None),
        Err(error) if is_incapable(&error) => {
            tracing::warn!(?kind, %error, "the token does not decrypt with this key");
            Err(error)
        }
        other => other,
    }
}

fn unwrap_once(
    here: &Here<'_>,
    object: ObjectHandle,
    kind: KeyKind,
    request: &Request,
) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    match request {
        Request::Ecdh { ephemeral } => agree(here, object, kind, ephemeral).map(Some),
        Request::RsaOaep { digest, encrypted_key } => {
            decrypt_oaep(here, object, kind, *digest, encrypted_key)
        }
        Request::RsaPkcs1 { encrypted_key } => here
            .session
            .decrypt(&Mechanism::RsaPkcs, object, encrypted_key)
            .map(Zeroizing::new)
            .map(Some),
        Request::Unknown => Ok(None),
    }
}

fn decrypt_oaep(
    here: &Here<'_>,
    object: ObjectHandle,
    kind: KeyKind,
    digest: Digest,
    encrypted_key: &[u8],
) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let session = here.session;
    let unpadded_here = &here.connection.oaep_here;
    let bit = oaep_bit(digest);
    if unpadded_here.load(Ordering::Relaxed) & bit == 0 {
        let (hash, mgf) = mechanisms(digest);
        let parameters = PkcsOaepParams::new(hash, mgf, PkcsOaepSource::empty());
        match session.decrypt(&Mechanism::RsaPkcsOaep(parameters), object, encrypted_key) {
            Err(error) if is_unknown_mechanism(&error) => {}
            result => return result.map(Zeroizing::new).map(Some),
        }
        unpadded_here.fetch_or(bit, Ordering::Relaxed);
    }
    let raw = Zeroizing::new(session.decrypt(&Mechanism::RsaX509, object, encrypted_key)?);
    let encoded = Zeroizing::new(left_padded(&raw, kind));
    Ok(oaep::decode(algorithm(digest), &encoded))
}

/// ECDH (SP 800-56A §5.7.1.2): the shared secret as a key of the session, read and destroyed.
fn agree(
    here: &Here<'_>,
    object: ObjectHandle,
    kind: KeyKind,
    ephemeral: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let session = here.session;
    let parameters = Ecdh1DeriveParams::new(EcKdf::null(), ephemeral);
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::ValueLen(Ulong::try_from(field_length(kind))?),
    ];
    let secret = session.derive_key(&Mechanism::Ecdh1Derive(parameters), object, &template)?;
    let value = session.get_attributes(secret, &[AttributeType::Value]);
    session.destroy_object(secret)?;
    value?
        .into_iter()
        .find_map(|attribute| match attribute {
            Attribute::Value(value) => Some(Zeroizing::new(value)),
            _ => None,
        })
        // It agreed and keeps the secret to itself.
        .ok_or(Error::NotSupported)
}

/// r and s end to end as ECDSA-Sig-Value (RFC 5480 appendix A).
fn ecdsa_der(raw: &[u8], field: usize) -> Option<Vec<u8>> {
    if raw.len() != 2 * field {
        return None;
    }
    let (r, s) = raw.split_at_checked(field)?;
    EcdsaSignature { r: UintRef::new(r).ok()?, s: UintRef::new(s).ok()? }.to_der().ok()
}

#[derive(Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// As long as the modulus: some tokens leave out leading zeros.
fn left_padded(value: &[u8], kind: KeyKind) -> Vec<u8> {
    let KeyKind::Rsa { bits } = kind else { return value.to_vec() };
    let length = usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX);
    let mut padded = Vec::with_capacity(length.max(value.len()));
    padded.resize(length.saturating_sub(value.len()), 0);
    padded.extend_from_slice(value);
    padded
}

/// Octets of a coordinate.
fn field_length(kind: KeyKind) -> usize {
    match kind {
        KeyKind::P384 => 48,
        KeyKind::P521 => 66,
        _ => 32,
    }
}

fn algorithm(digest: Digest) -> &'static digest::Algorithm {
    match digest {
        Digest::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        Digest::Sha256 => &digest::SHA256,
        Digest::Sha384 => &digest::SHA384,
        Digest::Sha512 => &digest::SHA512,
    }
}

fn mechanisms(digest: Digest) -> (MechanismType, PkcsMgfType) {
    match digest {
        Digest::Sha1 => (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1),
        Digest::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
        Digest::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384),
        Digest::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512),
    }
}

fn oaep_bit(digest: Digest) -> u8 {
    match digest {
        Digest::Sha1 => 1,
        Digest::Sha256 => 2,
        Digest::Sha384 => 4,
        Digest::Sha512 => 8,
    }
}

/// DigestInfo up to the digest (RFC 8017 §9.2 note 1); nothing is signed over SHA-1.
fn digest_info(digest: Digest) -> Option<&'static [u8]> {
    match digest {
        Digest::Sha1 => None,
        Digest::Sha256 => {
            Some(b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20")
        }
        Digest::Sha384 => {
            Some(b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30")
        }
        Digest::Sha512 => {
            Some(b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ecdsa_signature_is_written_as_der() {
        let mut raw = [0; 64];
        raw[31] = 0x80;
        raw[63] = 0x01;
        assert_eq!(ecdsa_der(&raw, 32).unwrap(), [0x30, 7, 2, 2, 0, 0x80, 2, 1, 1]);
        assert!(ecdsa_der(&raw[1..], 32).is_none());
    }

    #[test]
    fn a_key_signs_only_with_schemes_of_its_kind() {
        let rsa = KeyKind::Rsa { bits: 2048 };
        let prepared = |kind, scheme| Prepared::new(kind, scheme, b"x").map(|p| p.input.len());
        assert_eq!(prepared(rsa, SignatureScheme::RsaPkcs1(Digest::Sha256)), Some(51));
        assert_eq!(prepared(rsa, SignatureScheme::RsaPkcs1(Digest::Sha1)), None);
        assert_eq!(prepared(rsa, SignatureScheme::Ecdsa(Digest::Sha256)), None);
        assert_eq!(prepared(KeyKind::P256, SignatureScheme::Ecdsa(Digest::Sha512)), Some(32));
        assert_eq!(prepared(KeyKind::P521, SignatureScheme::Ecdsa(Digest::Sha512)), Some(64));
    }
}
