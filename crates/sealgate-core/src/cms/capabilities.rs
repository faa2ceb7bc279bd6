//! SMIMECapabilities (RFC 8551 §2.5.2, RFC 4262): what somebody's software reads.
//!
//! In: the DER of the SEQUENCE, from a signed attribute or a certificate's extension. Out: the few facts that choose our algorithms.
//! Unknown entries are passed over.

use super::CmsError;
use super::algorithm::{
    AES_128_CBC, AES_128_GCM, AES_256_CBC, AES_256_GCM, Algorithm, RSAES_OAEP, oaep_digest, write,
    write_oaep,
};
use super::element::{Reader, SEQUENCE, tlv};
use crate::keys::{Capabilities, Digest};

/// Reads a SEQUENCE OF SMIMECapability.
///
/// # Errors
/// [`CmsError::Malformed`] when it is none, [`CmsError::OverLimit`] when it has too many entries.
pub fn parse_capabilities(der: &[u8]) -> Result<Capabilities, CmsError> {
    let mut known = Capabilities::default();
    for (index, entry) in Reader::only(der, SEQUENCE)?.reader().enumerate() {
        if index >= ENTRIES_MAX {
            return Err(CmsError::OverLimit);
        }
        let entry = Algorithm::read(&entry?)?;
        known.aes_128_gcm |= entry.is(AES_128_GCM);
        known.aes_256_cbc |= entry.is(AES_256_CBC);
        known.aes_256_gcm |= entry.is(AES_256_GCM);
        if entry.is(RSAES_OAEP) {
            // Parameters may be left out (RFC 8551 §2.5.2 lists capabilities without them); with parameters only SHA-256 helps us.
            known.rsa_oaep |= match entry.parameters {
                None => true,
                Some(_) => matches!(oaep_digest(&entry), Ok(Digest::Sha256)),
            };
        }
    }
    Ok(known)
}

/// What we read, best first, as the value of the signed attribute and of our authority's extension.
pub(crate) fn own_capabilities() -> Vec<u8> {
    tlv(
        SEQUENCE,
        &[
            &write(AES_256_GCM, &[]),
            &write(AES_128_GCM, &[]),
            &write(AES_256_CBC, &[]),
            &write(AES_128_CBC, &[]),
            &write_oaep(Digest::Sha256),
        ],
    )
}

/// Entries that are read at most.
const ENTRIES_MAX: usize = 100;
