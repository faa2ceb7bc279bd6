//! S/MIME encryption (RFC 8551 §3.3, §3.4): an entity becomes application/pkcs7-mime.

use bytes::Bytes;

use crate::cms::{self, CmsError, ContentCipher};
use crate::encrypt::Chosen;
use crate::mime::write;

/// Encrypts an entity to certificates. AuthEnvelopedData for GCM, EnvelopedData for CBC; who calls it sees to
/// it that CBC content carries a signature (F3).
///
/// # Errors
/// [`CmsError`] when a certificate cannot be encrypted to after all.
pub fn encrypt(
    entity: &[Bytes],
    cipher: ContentCipher,
    recipients: &[&Chosen],
) -> Result<Vec<Bytes>, CmsError> {
    let content: Vec<&[u8]> = entity.iter().map(Bytes::as_ref).collect();
    let certificates: Vec<_> =
        recipients.iter().map(|chosen| (chosen.certificate.as_ref(), chosen.wrap)).collect();
    let der = cms::encrypt(&content, cipher, &certificates)?;
    let smime_type =
        if cipher.is_authenticated() { "authEnveloped-data" } else { "enveloped-data" };
    Ok(vec![write::pkcs7_mime(&[], smime_type, der)])
}
