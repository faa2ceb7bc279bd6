//! SMIMECapabilities (RFC 8551 §2.5.2, RFC 4262): what somebody's software reads.
//!
//! In: the DER of the SEQUENCE, from a signed attribute or a certificate's extension. Out: the few
//! facts that choose our algorithms. Unknown entries are passed over.

use super::CmsError;
use super::algorithm::{
    AES_128_CBC, AES_128_GCM, AES_256_CBC, AES_256_GCM, Algorithm, MGF1, RSAES_OAEP, digest_of,
    oaep_digest, write, write_oaep,
};
use super::element::{Element, Reader, SEQUENCE, tlv};
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
        known.rsa_oaep |=
            entry.is(RSAES_OAEP) && entry.parameters.is_some_and(|all| is_sha_256(&entry, &all));
    }
    Ok(known)
}

/// Whether RSAES-OAEP's parameters say SHA-256 for both uses: as RFC 4055 §4.1 has them, or without
/// the explicit tags, as RFC 3560 §5 prints them. Parameters left out would mean SHA-1, which we do
/// not write.
fn is_sha_256(entry: &Algorithm<'_>, parameters: &Element<'_>) -> bool {
    if matches!(oaep_digest(entry), Ok(Digest::Sha256)) {
        return true;
    }
    let untagged = || -> Result<bool, CmsError> {
        let mut members = parameters.reader();
        let digest = digest_of(&Algorithm::next(&mut members)?);
        let mask = Algorithm::next(&mut members)?;
        members.finish()?;
        let inner = mask.parameters.ok_or(CmsError::Malformed)?;
        let inner = digest_of(&Algorithm::read(&inner)?);
        Ok(mask.is(MGF1) && digest == Some(Digest::Sha256) && inner == digest)
    };
    untagged().unwrap_or(false)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cms::algorithm::write_oaep;
    use crate::cms::element::{CONSTRUCTED_0, CONSTRUCTED_1};

    #[test]
    fn what_we_write_we_read() {
        let known = parse_capabilities(&own_capabilities()).unwrap();
        let all = Capabilities {
            aes_128_gcm: true,
            aes_256_cbc: true,
            aes_256_gcm: true,
            rsa_oaep: true,
        };
        assert_eq!(known, all);
        assert_eq!(parse_capabilities(&[0x30, 0]), Ok(Capabilities::default()));
    }

    #[test]
    fn oaep_counts_with_sha_256_only() {
        let oaep = |entry: &[u8]| parse_capabilities(&tlv(SEQUENCE, &[entry])).unwrap().rsa_oaep;
        assert!(oaep(&write_oaep(Digest::Sha256)));
        assert!(!oaep(&write_oaep(Digest::Sha1)));
        assert!(!oaep(&write(RSAES_OAEP, &[])));
        assert!(!oaep(&write(RSAES_OAEP, &[SEQUENCE, 0])));
        // As our authority's certificates have it.
        let ours = "303c06092a864886f70d010107302fa00f300d06096086480165030402010500\
                    a11c301a06092a864886f70d010108300d06096086480165030402010500";
        let octet = |at| u8::from_str_radix(&ours[at..at + 2], 16).unwrap();
        assert!(oaep(&(0..ours.len()).step_by(2).map(octet).collect::<Vec<u8>>()));
        // RFC 3560 §5.
        let tagged = write_oaep(Digest::Sha256);
        let printed: Vec<u8> = {
            let mut entry = Reader::only(&tagged, SEQUENCE).unwrap().reader();
            entry.element().unwrap();
            let mut members = entry.element().unwrap().reader();
            let hash = members.expect(CONSTRUCTED_0).unwrap().body;
            let mask = members.expect(CONSTRUCTED_1).unwrap().body;
            write(RSAES_OAEP, &tlv(SEQUENCE, &[hash, mask]))
        };
        assert_eq!(printed.len(), 2 + 0x38);
        assert!(oaep(&printed));
    }

    #[test]
    fn too_many_entries_are_over_the_limit() {
        let entry = write(AES_256_CBC, &[]);
        let list = |count: usize| tlv(SEQUENCE, &vec![entry.as_slice(); count]);
        assert!(parse_capabilities(&list(ENTRIES_MAX)).unwrap().aes_256_cbc);
        assert_eq!(parse_capabilities(&list(ENTRIES_MAX + 1)), Err(CmsError::OverLimit));
    }
}
