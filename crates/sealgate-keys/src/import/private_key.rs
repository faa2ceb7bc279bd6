//! Secret keys in their three bare forms: PKCS#8 (RFC 5958), PKCS#1 (RFC 8017 §A.1.2), SEC 1 (RFC 5915).

use der::asn1::{AnyRef, ObjectIdentifier, OctetString};
use der::{Decode, Encode, Sequence};
use x509_cert::spki::AlgorithmIdentifierRef;
use zeroize::{Zeroize, Zeroizing};

use super::{ImportError, not_usable, password};

/// Any of the three, unencrypted, as PKCS#8.
pub(crate) fn from_der(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if PrivateKeyInfo::from_der(bytes).is_ok() {
        return Some(Zeroizing::new(bytes.to_vec()));
    }
    if RsaPrivateKey::from_der(bytes).is_ok() {
        return wrap(RSA_ENCRYPTION, AnyRef::NULL, bytes);
    }
    let key = EcPrivateKey::from_der(bytes).ok().filter(|key| key.version == 1)?;
    wrap(EC_PUBLIC_KEY, AnyRef::from(&key.curve?), bytes)
}

/// An EncryptedPrivateKeyInfo (RFC 5958 §3); `None` where it is none.
pub(super) fn from_encrypted(
    bytes: &[u8],
    password: Option<&str>,
    budget: &mut password::Budget,
) -> Result<Option<Zeroizing<Vec<u8>>>, ImportError> {
    let Ok(info) = EncryptedPrivateKeyInfo::from_der(bytes) else { return Ok(None) };
    let secret = decrypt(&info, password, budget)?;
    Ok(Some(secret))
}

/// Decrypts and looks whether a key came out.
pub(super) fn decrypt(
    info: &EncryptedPrivateKeyInfo<'_>,
    password: Option<&str>,
    budget: &mut password::Budget,
) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let password = password.ok_or(ImportError::PasswordNeeded)?;
    let encrypted = info.encrypted.as_bytes();
    let secret = password::decrypt(&info.algorithm, encrypted, password, budget)?;
    // PKCS #7 padding is right by chance once in 256 wrong passwords.
    from_der(&secret).ok_or(ImportError::WrongPassword)
}

fn wrap(
    algorithm: ObjectIdentifier,
    parameters: AnyRef<'_>,
    key: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let algorithm = AlgorithmIdentifierRef { oid: algorithm, parameters: Some(parameters) };
    let mut info =
        NewPrivateKeyInfo { version: 0, algorithm, private_key: OctetString::new(key).ok()? };
    let der = info.to_der().ok().map(Zeroizing::new);
    let mut bytes =
        std::mem::replace(&mut info.private_key, OctetString::new([]).ok()?).into_bytes();
    bytes.zeroize();
    der
}

/// PrivateKeyInfo or OneAsymmetricKey as far as it must be known to tell it from the others.
struct PrivateKeyInfo;

impl PrivateKeyInfo {
    fn from_der(bytes: &[u8]) -> der::Result<()> {
        use der::{Reader, SliceReader};
        let mut outer = SliceReader::new(bytes)?;
        let value = AnyRef::decode(&mut outer)?;
        outer.finish()?;
        let mut inner = SliceReader::new(value.value())?;
        let _version = u8::decode(&mut inner)?;
        let _algorithm = AlgorithmIdentifierRef::decode(&mut inner)?;
        let _key = <&der::asn1::OctetStringRef>::decode(&mut inner)?;
        Ok(())
    }
}

#[derive(Sequence)]
struct NewPrivateKeyInfo<'a> {
    version: u8,
    algorithm: AlgorithmIdentifierRef<'a>,
    private_key: OctetString,
}

/// EncryptedPrivateKeyInfo.
#[derive(Sequence)]
pub(super) struct EncryptedPrivateKeyInfo<'a> {
    algorithm: AlgorithmIdentifierRef<'a>,
    encrypted: OctetString,
}

/// RSAPrivateKey: version and eight integers.
#[derive(Sequence)]
struct RsaPrivateKey<'a> {
    version: u8,
    n: der::asn1::UintRef<'a>,
    e: der::asn1::UintRef<'a>,
    d: der::asn1::UintRef<'a>,
    p: der::asn1::UintRef<'a>,
    q: der::asn1::UintRef<'a>,
    dp: der::asn1::UintRef<'a>,
    dq: der::asn1::UintRef<'a>,
    q_inverse: der::asn1::UintRef<'a>,
}

/// ECPrivateKey; without the curve it is of no use outside PKCS#8.
#[derive(Sequence)]
struct EcPrivateKey<'a> {
    version: u8,
    private_key: &'a der::asn1::OctetStringRef,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    curve: Option<ObjectIdentifier>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    public_key: Option<der::asn1::BitStringRef<'a>>,
}

/// What to say of a container that cannot be read although it looks like one.
pub(super) fn damaged(what: &str) -> ImportError {
    not_usable(format!("damaged {what}"))
}

/// rsaEncryption, RFC 8017 §A.1.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// id-ecPublicKey, RFC 5480 §2.1.1.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
