//! The SMIMECapabilities extension of our certificates (RFC 4262): what this proxy reads.
//!
//! It lets a correspondent use AES-256-GCM and OAEP for the first message already, before any signed mail came.

use der::asn1::{AnyRef, ContextSpecific, ObjectIdentifier};
use der::{Encode, Sequence, TagNumber};
use rcgen::CustomExtension;

use crate::error::StoreError;

/// The extension; `rsa` adds RSAES-OAEP with SHA-256 (RFC 3560 §5).
pub(super) fn extension(rsa: bool) -> Result<CustomExtension, StoreError> {
    let content = encode(rsa).map_err(|error| StoreError::Authority(error.to_string()))?;
    Ok(CustomExtension::from_oid_content(&SMIME_CAPABILITIES, content))
}

fn encode(rsa: bool) -> der::Result<Vec<u8>> {
    let mut list = Vec::new();
    for oid in CONTENT_ALGORITHMS {
        list.push(Capability { oid, parameters: None });
    }
    let oaep = oaep_sha256()?;
    if rsa {
        list.push(Capability { oid: RSAES_OAEP, parameters: Some(AnyRef::try_from(&*oaep)?) });
    }
    list.to_der()
}

/// RSAES-OAEP-params with SHA-256 for both functions (RFC 4055 §4.1).
fn oaep_sha256() -> der::Result<Vec<u8>> {
    let sha256 = Capability { oid: SHA_256, parameters: Some(AnyRef::NULL) };
    let digest = sha256.to_der()?;
    let mask = Capability { oid: MGF1, parameters: Some(AnyRef::try_from(&*digest)?) };
    let explicit = der::TagMode::Explicit;
    let parameters = OaepParameters {
        hash: ContextSpecific { tag_number: TagNumber(0), tag_mode: explicit, value: sha256 },
        mask: ContextSpecific { tag_number: TagNumber(1), tag_mode: explicit, value: mask },
    };
    parameters.to_der()
}

/// RFC 8551 §2.5.2.
#[derive(Sequence)]
struct Capability<'a> {
    oid: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct OaepParameters<'a> {
    hash: ContextSpecific<Capability<'a>>,
    mask: ContextSpecific<Capability<'a>>,
}

/// smimeCapabilities, RFC 4262 §2.
const SMIME_CAPABILITIES: [u64; 7] = [1, 2, 840, 113549, 1, 9, 15];
/// In the order of preference: AES-256-GCM, AES-128-GCM (RFC 5084 §3.2), AES-256-CBC (RFC 3565 §4.1).
const CONTENT_ALGORITHMS: [ObjectIdentifier; 3] = [
    ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.46"),
    ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.6"),
    ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42"),
];
const RSAES_OAEP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.7");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oaep_carries_sha_256() {
        // RFC 3560 §5 with the explicit tags of RFC 4055 §4.1.
        let expected = "303c06092a864886f70d010107302fa00f300d06096086480165030402010500\
                        a11c301a06092a864886f70d010108300d06096086480165030402010500";
        let encoded: String =
            encode(true).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(encoded.ends_with(expected), "{encoded}");
        assert!(!encode(false).unwrap().windows(2).any(|pair| pair == [0x01, 0x07]));
    }
}
