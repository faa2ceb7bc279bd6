//! Lists of certificates as one column, and random names for rows.

use std::sync::Arc;

use der::{Reader, SliceReader};
use sealgate_core::hex;
use sealgate_core::keys::Certificate;

use crate::error::StoreError;

/// DER end to end.
pub(crate) fn concatenate(certificates: &[Arc<Certificate>]) -> Vec<u8> {
    certificates.iter().flat_map(|certificate| certificate.der().iter().copied()).collect()
}

/// The inverse; `None` where it is none.
pub(crate) fn split(bytes: &[u8]) -> Option<Vec<Arc<Certificate>>> {
    let mut reader = SliceReader::new(bytes).ok()?;
    let mut certificates = Vec::new();
    while !reader.is_finished() {
        if certificates.len() == LIST_MAX {
            return None;
        }
        let der = reader.tlv_bytes().ok()?;
        certificates.push(Arc::new(Certificate::from_der(der).ok()?));
    }
    Some(certificates)
}

/// Those that may stand above a certificate, by their names, the nearest first; no more than [`split`] reads again.
pub(crate) fn issuers(of: &Certificate, among: &[Arc<Certificate>]) -> Vec<Arc<Certificate>> {
    let mut found: Vec<Arc<Certificate>> = Vec::new();
    let mut wanted = vec![of.issuer_der().to_vec()];
    // Several may bear one name: renewed ones, and cross-certificates.
    while let Some(name) = wanted.pop() {
        for candidate in among.iter().filter(|one| one.subject_der() == name.as_slice()) {
            let is_new = !found.iter().any(|one| one.fingerprint() == candidate.fingerprint());
            if is_new && found.len() < LIST_MAX {
                wanted.insert(0, candidate.issuer_der().to_vec());
                found.push(Arc::clone(candidate));
            }
        }
    }
    found
}

/// 128 random bits in hexadecimal.
pub(crate) fn random_id() -> Result<String, StoreError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| StoreError::Authority("the random number generator failed".to_owned()))?;
    Ok(hex::text(&bytes))
}

/// Certificates in one column, as REQUIREMENTS K4 has it for one message.
const LIST_MAX: usize = 64;
