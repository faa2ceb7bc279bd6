//! Revocation lists (RFC 5280 §5) from files, DER or PEM.

use std::path::Path;

use der::Decode;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::time::Time;

use crate::error::StoreError;

/// A list with what the store needs to know of it.
pub(crate) struct Crl {
    pub(crate) der: Vec<u8>,
    pub(crate) issuer: String,
    pub(crate) this_update: i64,
    pub(crate) next_update: Option<i64>,
}

/// Parses one DER list.
pub(crate) fn parse(der: &[u8]) -> Option<Crl> {
    let list = CertificateList::<Rfc5280>::from_der(der).ok()?;
    let fields = list.tbs_cert_list;
    let seconds = |time: Time| i64::try_from(time.to_unix_duration().as_secs()).ok();
    Some(Crl {
        der: der.to_vec(),
        issuer: fields.issuer.to_string(),
        this_update: seconds(fields.this_update)?,
        next_update: fields.next_update.and_then(seconds),
    })
}

/// Reads a file with one DER list or any number of PEM ones.
pub(crate) fn read_file(path: &Path) -> Result<Vec<Vec<u8>>, StoreError> {
    let bad = |why: String| StoreError::Crl { path: path.to_owned(), why };
    let bytes = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let lists = if bytes.starts_with(b"-----") || !bytes.starts_with(&[0x30]) {
        super::pem::blocks(&bytes)
            .map_err(|damage| bad(damage.to_string()))?
            .into_iter()
            .filter(|block| block.label == "X509 CRL")
            .map(|block| block.der.to_vec())
            .collect()
    } else {
        vec![bytes]
    };
    if lists.is_empty() || lists.iter().any(|der| parse(der).is_none()) {
        return Err(bad("not a certificate revocation list: give DER, or PEM `X509 CRL`".into()));
    }
    Ok(lists)
}
