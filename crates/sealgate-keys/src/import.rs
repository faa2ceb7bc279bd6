//! Reads what administrators bring: PEM, DER, PKCS#12, certs-only PKCS#7, revocation lists. Never used on mail.
//!
//! In: a file's bytes, at most [`FILE_BYTES_MAX`]. Out: certificates, or a secret key with its certificates.

pub(crate) mod crl;
pub(crate) mod pem;
