//! A secret key and its certificates as the attributes of token objects (PKCS #11 3.0 §4).
//!
//! In: PKCS#8 (RFC 5958). Out: templates for `C_CreateObject`. The secret's copies in a template are not wiped when it
//! is dropped by its crate, so that [`wipe`] does it.

use aws_lc_rs::digest;
use cryptoki::object::{Attribute, CertificateType, KeyType, ObjectClass};
use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef, UintRef};
use der::{Decode, Encode, Sequence, SliceReader};
use sealgate_core::keys::Certificate;
use x509_cert::spki::AlgorithmIdentifierRef;
use zeroize::Zeroize;

use crate::secret_key_store::KeyPurpose;

/// The private key object; `None` where a token takes no such key.
pub(super) fn secret_key(
    pkcs8: &[u8],
    purpose: KeyPurpose,
    label: &str,
    id: &[u8],
) -> Option<Vec<Attribute>> {
    let (algorithm, key) = split(pkcs8)?;
    let may_sign = purpose.serves(KeyPurpose::Sign);
    let may_decrypt = purpose.serves(KeyPurpose::Encrypt);
    let mut template = vec![
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(id.to_vec()),
        Attribute::Sign(may_sign),
    ];
    match algorithm.oid {
        RSA_ENCRYPTION | RSASSA_PSS => {
            template.push(Attribute::Decrypt(may_decrypt));
            template.extend(rsa(key)?);
        }
        EC_PUBLIC_KEY => {
            template.push(Attribute::Derive(may_decrypt));
            let curve = algorithm.parameters?.to_der().ok()?;
            let value = EcPrivateKey::from_der(key).ok()?.private_key.as_bytes().to_vec();
            template.extend([
                Attribute::KeyType(KeyType::EC),
                Attribute::EcParams(curve),
                Attribute::Value(value),
            ]);
        }
        ED25519 => {
            let value = <&OctetStringRef>::from_der(key).ok()?.as_bytes().to_vec();
            template.extend([
                Attribute::KeyType(KeyType::EC_EDWARDS),
                Attribute::EcParams(EDWARDS_25519.to_vec()),
                Attribute::Value(value),
            ]);
        }
        _ => return None,
    }
    Some(template)
}

/// A certificate object.
pub(super) fn certificate(certificate: &Certificate, label: &str) -> Option<Vec<Attribute>> {
    let serial = UintRef::new(certificate.serial_bytes()).ok()?.to_der().ok()?;
    Some(vec![
        Attribute::Class(ObjectClass::CERTIFICATE),
        Attribute::CertificateType(CertificateType::X_509),
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(id_of(certificate)),
        Attribute::Subject(certificate.subject_der().to_vec()),
        Attribute::Issuer(certificate.issuer_der().to_vec()),
        Attribute::SerialNumber(serial),
        Attribute::Value(certificate.der().to_vec()),
    ])
}

/// `CKA_ID`: SHA-1 of the public key's bits, as RFC 5280 §4.2.1.2 makes key identifiers.
pub(super) fn id_of(certificate: &Certificate) -> Vec<u8> {
    let algorithm = &digest::SHA1_FOR_LEGACY_USE_ONLY;
    digest::digest(algorithm, certificate.public_key_bytes()).as_ref().to_vec()
}

/// Overwrites the secret values.
pub(super) fn wipe(template: &mut [Attribute]) {
    for attribute in template {
        match attribute {
            Attribute::Value(value)
            | Attribute::PrivateExponent(value)
            | Attribute::Prime1(value)
            | Attribute::Prime2(value)
            | Attribute::Exponent1(value)
            | Attribute::Exponent2(value)
            | Attribute::Coefficient(value) => value.zeroize(),
            _ => {}
        }
    }
}

fn rsa(key: &[u8]) -> Option<[Attribute; 9]> {
    let key = RsaPrivateKey::from_der(key).ok()?;
    let bytes = |integer: UintRef<'_>| integer.as_bytes().to_vec();
    Some([
        Attribute::KeyType(KeyType::RSA),
        Attribute::Modulus(bytes(key.n)),
        Attribute::PublicExponent(bytes(key.e)),
        Attribute::PrivateExponent(bytes(key.d)),
        Attribute::Prime1(bytes(key.p)),
        Attribute::Prime2(bytes(key.q)),
        Attribute::Exponent1(bytes(key.dp)),
        Attribute::Exponent2(bytes(key.dq)),
        Attribute::Coefficient(bytes(key.q_inverse)),
    ])
}

/// Algorithm and key of a PrivateKeyInfo; attributes and public key after them are not needed.
fn split(pkcs8: &[u8]) -> Option<(AlgorithmIdentifierRef<'_>, &[u8])> {
    let whole = AnyRef::from_der(pkcs8).ok()?;
    let mut members = SliceReader::new(whole.value()).ok()?;
    let _version = u8::decode(&mut members).ok()?;
    let algorithm = AlgorithmIdentifierRef::decode(&mut members).ok()?;
    let key = <&OctetStringRef>::decode(&mut members).ok()?;

    Some((algorithm, key.as_bytes()))
}

/// RSAPrivateKey (RFC 8017 §A.1.2).
#[derive(Sequence)]
struct RsaPrivateKey<'a> {
    version: u8,
    n: UintRef<'a>,
    e: UintRef<'a>,
    d: UintRef<'a>,
    p: UintRef<'a>,
    q: UintRef<'a>,
    dp: UintRef<'a>,
    dq: UintRef<'a>,
    q_inverse: UintRef<'a>,
}

/// ECPrivateKey (RFC 5915 §3).
#[derive(Sequence)]
struct EcPrivateKey<'a> {
    version: u8,
    private_key: &'a OctetStringRef,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    curve: Option<ObjectIdentifier>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    public_key: Option<der::asn1::BitStringRef<'a>>,
}

/// RFC 8017 §A.1.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// RFC 4055 §3.1.
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// RFC 5480 §2.1.1.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// RFC 8410 §3.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// `CKA_EC_PARAMS` of Ed25519: PrintableString `edwards25519` (PKCS #11 3.0 §2.3.5), which more tokens know than the
/// object identifier.
const EDWARDS_25519: &[u8] = b"\x13\x0cedwards25519";
