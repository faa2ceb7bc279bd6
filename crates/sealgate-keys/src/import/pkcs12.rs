//! PKCS#12 key stores (RFC 7292), for reading: password integrity and password privacy.
//!
//! In: a PFX, BER or DER. Out: its certificates and secret keys, in their order. Friendly names and local key ids are
//! not looked at: keys and certificates are paired by the public key, which cannot be wrong. Nested safes, secret bags
//! and public-key integrity are not read.

use std::borrow::Cow;

use aws_lc_rs::{digest, hmac};
use der::asn1::{AnyRef, ObjectIdentifier, OctetString};
use der::{Decode, Sequence};
use sealgate_core::keys::Certificate;
use x509_cert::spki::AlgorithmIdentifierRef;
use zeroize::Zeroizing;

use super::password::{self, Budget};
use super::private_key::{self, EncryptedPrivateKeyInfo, damaged};
use super::{ImportError, Material, not_usable, pkcs12_kdf, to_der};

/// Reads a store; `None` where the bytes are none.
pub(super) fn read(
    bytes: &[u8],
    password: Option<&str>,
    budget: &mut Budget,
) -> Result<Option<Material>, ImportError> {
    let Some(der) = to_der(bytes) else { return Ok(None) };
    let Ok(pfx) = Pfx::from_der(&der) else { return Ok(None) };
    if pfx.version != 3 || pfx.content.content_type != DATA {
        return Err(not_usable("a PKCS#12 file of an unsupported kind"));
    }
    let content: OctetString =
        pfx.content.content.decode_as().map_err(|_| damaged("PKCS#12 file"))?;
    // A store that was made without a password has the empty one, or is not encrypted.
    let read = read_content(&pfx, content.as_bytes(), password.unwrap_or_default(), budget);
    match read {
        Err(ImportError::WrongPassword) if password.is_none() => Err(ImportError::PasswordNeeded),
        read => read.map(Some),
    }
}

fn read_content(
    pfx: &Pfx<'_>,
    content: &[u8],
    password: &str,
    budget: &mut Budget,
) -> Result<Material, ImportError> {
    if let Some(mac) = &pfx.mac {
        verify_mac(mac, content, password, budget)?;
    }
    let mut store = Material::default();
    let safes = normalized(content)?;
    let safes: Vec<ContentInfo<'_>> = Vec::from_der(&safes).map_err(|_| damaged("PKCS#12 file"))?;
    if safes.len() > SAFES_MAX {
        return Err(not_usable("a PKCS#12 file with too many parts"));
    }
    for safe in &safes {
        let bags = safe_contents(safe, password, budget)?;
        read_bags(&bags, password, budget, &mut store)?;
    }
    Ok(store)
}

/// The bags of one safe, decrypted where they are encrypted.
fn safe_contents(
    safe: &ContentInfo<'_>,
    password: &str,
    budget: &mut Budget,
) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let bad = |_| damaged("PKCS#12 file");
    match safe.content_type {
        DATA => {
            let bags: OctetString = safe.content.decode_as().map_err(bad)?;
            Ok(Zeroizing::new(bags.into_bytes().into()))
        }
        ENCRYPTED_DATA => {
            let data: EncryptedData<'_> = safe.content.decode_as().map_err(bad)?;
            let content = &data.content;
            let encrypted = content.encrypted.as_ref().ok_or_else(|| damaged("PKCS#12 file"))?;
            password::decrypt(&content.algorithm, encrypted.as_bytes(), password, budget)
        }
        _ => Err(not_usable("a PKCS#12 file that is encrypted to a public key")),
    }
}

fn read_bags(
    bags: &[u8],
    password: &str,
    budget: &mut Budget,
    store: &mut Material,
) -> Result<(), ImportError> {
    let bad = |_| damaged("PKCS#12 file");
    let bags = normalized(bags)?;
    let bags: Vec<SafeBag<'_>> = Vec::from_der(&bags).map_err(bad)?;
    if bags.len() > BAGS_MAX {
        return Err(not_usable("a PKCS#12 file with too many entries"));
    }
    for bag in bags {
        match bag.kind {
            CERTIFICATE_BAG => {
                let bag: CertificateBag = bag.value.decode_as().map_err(bad)?;
                if bag.kind == X509_CERTIFICATE {
                    let certificate = Certificate::from_der(bag.value.as_bytes())
                        .map_err(|error| not_usable(error.to_string()))?;
                    store.certificates.push(certificate.into());
                }
            }
            KEY_BAG => {
                let key = Zeroizing::new(der::Encode::to_der(&bag.value).map_err(bad)?);
                let key = private_key::from_der(&key).ok_or_else(|| damaged("PKCS#12 file"))?;
                store.secrets.push(key);
            }
            SHROUDED_KEY_BAG => {
                let info: EncryptedPrivateKeyInfo<'_> = bag.value.decode_as().map_err(bad)?;
                store.secrets.push(private_key::decrypt(&info, Some(password), budget)?);
            }
            _ => {}
        }
    }
    Ok(())
}

fn verify_mac(
    mac: &MacData<'_>,
    content: &[u8],
    password: &str,
    budget: &mut Budget,
) -> Result<(), ImportError> {
    let (digest, algorithm): (&digest::Algorithm, _) = match mac.mac.algorithm.oid {
        SHA_1 => (&digest::SHA1_FOR_LEGACY_USE_ONLY, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        SHA_256 => (&digest::SHA256, hmac::HMAC_SHA256),
        SHA_384 => (&digest::SHA384, hmac::HMAC_SHA384),
        SHA_512 => (&digest::SHA512, hmac::HMAC_SHA512),
        oid => return Err(not_usable(format!("a PKCS#12 file whose MAC is {oid}"))),
    };
    let iterations = budget.take(mac.iterations.unwrap_or(1))?;
    let purpose = pkcs12_kdf::Purpose::Mac;
    let salt = mac.salt.as_bytes();
    let length = digest.output_len();
    let key = pkcs12_kdf::derive(digest, purpose, password, salt, iterations, length);
    let key = hmac::Key::new(algorithm, &key);
    hmac::verify(&key, content, mac.mac.digest.as_bytes()).map_err(|_| ImportError::WrongPassword)
}

/// The parts inside octet strings may be BER again.
fn normalized(bytes: &[u8]) -> Result<Cow<'_, [u8]>, ImportError> {
    to_der(bytes).ok_or_else(|| damaged("PKCS#12 file"))
}

/// PFX, RFC 7292 §4.
#[derive(Sequence)]
struct Pfx<'a> {
    version: u8,
    content: ContentInfo<'a>,
    mac: Option<MacData<'a>>,
}

/// RFC 5652 §3.
#[derive(Sequence)]
struct ContentInfo<'a> {
    content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: AnyRef<'a>,
}

/// RFC 7292 §4.
#[derive(Sequence)]
struct MacData<'a> {
    mac: DigestInfo<'a>,
    salt: OctetString,
    iterations: Option<u32>,
}

/// RFC 8017 §9.2.
#[derive(Sequence)]
struct DigestInfo<'a> {
    algorithm: AlgorithmIdentifierRef<'a>,
    digest: OctetString,
}

/// RFC 5652 §8.
#[derive(Sequence)]
struct EncryptedData<'a> {
    version: u8,
    content: EncryptedContentInfo<'a>,
}

/// RFC 5652 §6.1.
#[derive(Sequence)]
struct EncryptedContentInfo<'a> {
    content_type: ObjectIdentifier,
    algorithm: AlgorithmIdentifierRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    encrypted: Option<OctetString>,
}

/// RFC 7292 §4.2; the attributes are a SET OF and not looked at.
#[derive(Sequence)]
struct SafeBag<'a> {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: AnyRef<'a>,
    attributes: Option<AnyRef<'a>>,
}

/// RFC 7292 §4.2.3.
#[derive(Sequence)]
struct CertificateBag {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: OctetString,
}

const SAFES_MAX: usize = 16;
const BAGS_MAX: usize = 256;
/// id-data and id-encryptedData, RFC 5652 §4 and §8.
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ENCRYPTED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.6");
/// Bag types, RFC 7292 appendix D.
const KEY_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.1");
const SHROUDED_KEY_BAG: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.2");
const CERTIFICATE_BAG: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.3");
const X509_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.22.1");
const SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA_512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
