//! Reads what administrators bring: PEM, DER, PKCS#12, certs-only PKCS#7, revocation lists. Never used on mail.
//!
//! In: the bytes of one or several files, each at most [`FILE_BYTES_MAX`] (REQUIREMENTS K7). Out: certificates, or secret
//! keys paired with their certificates by the public key, not by names. Encrypted keys and containers take one password.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use sealgate_core::cms::{CERTIFICATES_MAX, CRLS_MAX, CmsError, ContentKind, SignedData};
use sealgate_core::cms::{content_kind, transcode};
use sealgate_core::keys::{Certificate, SoftwareKey};
use sealgate_core::trust::is_issued_by;
use zeroize::Zeroizing;

use password::{Budget, ITERATIONS_PER_FILE_MAX};

pub(crate) mod crl;
mod password;
pub(crate) mod pem;
mod pkcs12;
mod pkcs12_kdf;
pub(crate) mod private_key;

/// What a file holds.
#[derive(Default)]
pub struct Material {
    /// Certificates in the order of the file.
    pub certificates: Vec<Arc<Certificate>>,
    /// Revocation lists.
    pub crls: Vec<Vec<u8>>,
    /// Secret keys as PKCS#8.
    secrets: Vec<Zeroizing<Vec<u8>>>,
}

/// A secret key with its certificate.
pub struct ImportedKey {
    pub(crate) pkcs8: Zeroizing<Vec<u8>>,
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) chain: Vec<Arc<Certificate>>,
}

impl ImportedKey {
    /// The certificate.
    pub fn certificate(&self) -> &Arc<Certificate> {
        &self.certificate
    }
}

/// Why a file cannot be imported; the text names what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportError {
    /// It is none of the known forms, or damaged.
    NotUsable(String),
    /// It is encrypted and no password was given.
    PasswordNeeded,
    /// It is encrypted with another password.
    WrongPassword,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUsable(why) => f.write_str(why),
            Self::PasswordNeeded => {
                f.write_str("it is encrypted: give its password with --password-file FILE")
            }
            Self::WrongPassword => {
                f.write_str("wrong password: correct the file named with --password-file")
            }
        }
    }
}

impl std::error::Error for ImportError {}

impl Material {
    /// Reads one file.
    ///
    /// # Errors
    /// [`ImportError`] where it holds nothing that is known.
    pub fn read(bytes: &[u8], password: Option<&str>) -> Result<Self, ImportError> {
        Self::read_at_cost(bytes, password, ITERATIONS_PER_FILE_MAX)
    }

    /// Reads one file whose passwords may cost so many iterations of a derivation in all, and not what
    /// REQUIREMENTS K7 allows.
    ///
    /// # Errors
    /// As for [`Self::read`], and where it costs more.
    pub fn read_at_cost(
        bytes: &[u8],
        password: Option<&str>,
        iterations: u32,
    ) -> Result<Self, ImportError> {
        let budget = &mut Budget::of(iterations);
        if bytes.len() > FILE_BYTES_MAX {
            return Err(not_usable(format!(
                "larger than {FILE_BYTES_MAX} bytes; a revocation list may be: name its file in [trust] crls"
            )));
        }
        let mut material = Self::default();
        if bytes.first() == Some(&SEQUENCE) && !bytes.starts_with(b"0\n") {
            material.read_der(bytes, password, budget)?;
        } else {
            material.read_pem(bytes, password, budget)?;
        }
        Ok(material)
    }

    /// Adds what another file holds.
    pub fn append(&mut self, mut other: Self) {
        self.certificates.append(&mut other.certificates);
        self.crls.append(&mut other.crls);
        self.secrets.append(&mut other.secrets);
    }

    /// Whether there is a secret key in it.
    pub fn has_secret_keys(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// Pairs every secret key with its certificates; other certificates become the chain where they are issuers. What is there
    /// twice, in two files perhaps, counts once.
    ///
    /// # Errors
    /// [`ImportError::NotUsable`] where there is no key, or one without a certificate.
    pub fn into_keys(mut self) -> Result<Vec<ImportedKey>, ImportError> {
        if self.secrets.is_empty() {
            return Err(not_usable(
                "no secret key in it: give PKCS#12, or PEM with key and \
                                   certificates",
            ));
        }
        let mut seen = HashSet::new();
        self.certificates.retain(|certificate| seen.insert(certificate.fingerprint()));
        let mut paired = HashSet::new();
        let mut keys = Vec::new();
        for pkcs8 in self.secrets {
            let key = SoftwareKey::from_pkcs8(&pkcs8).map_err(|_| {
                not_usable(
                    "a secret key of a kind that sealgate does not use: take RSA from 2048 \
                            bits, P-256, P-384, P-521, Ed25519 or X25519",
                )
            })?;
            if !paired.insert(key.public_key_bytes().to_vec()) {
                continue;
            }
            let of_key = |certificate: &&Arc<Certificate>| {
                certificate.public_key_bytes() == key.public_key_bytes()
            };
            let before = keys.len();
            for certificate in self.certificates.iter().filter(of_key) {
                keys.push(ImportedKey {
                    pkcs8: pkcs8.clone(),
                    certificate: Arc::clone(certificate),
                    chain: chain_of(certificate, &self.certificates),
                });
            }
            if keys.len() == before {
                return Err(not_usable(
                    "a secret key without its certificate: add the \
                                       certificate to the file, or give a second file with it",
                ));
            }
        }
        Ok(keys)
    }

    fn read_der(
        &mut self,
        bytes: &[u8],
        password: Option<&str>,
        budget: &mut Budget,
    ) -> Result<(), ImportError> {
        if let Ok(certificate) = Certificate::from_der(bytes) {
            self.certificates.push(Arc::new(certificate));
        } else if let Some(secret) = private_key::from_der(bytes) {
            self.secrets.push(secret);
        } else if let Some(secret) = private_key::from_encrypted(bytes, password, budget)? {
            self.secrets.push(secret);
        } else if content_kind(bytes) == Ok(ContentKind::SignedData) {
            self.take_signed_data(bytes)?;
        } else if crl::parse(bytes).is_some() {
            self.crls.push(bytes.to_vec());
        } else if let Some(store) = pkcs12::read(bytes, password, budget)? {
            self.append(store);
        } else {
            return Err(unknown());
        }
        Ok(())
    }

    fn read_pem(
        &mut self,
        bytes: &[u8],
        password: Option<&str>,
        budget: &mut Budget,
    ) -> Result<(), ImportError> {
        let blocks = pem::blocks(bytes).map_err(|damage| not_usable(damage.to_string()))?;
        if blocks.is_empty() {
            return Err(unknown());
        }
        for block in blocks {
            let damaged =
                || not_usable(format!("damaged PEM block `{}`: export it again", block.label));
            match block.label.as_str() {
                _ if block.has_headers && block.label.ends_with("PRIVATE KEY") => {
                    return Err(not_usable(
                        "a key in OpenSSL's old encrypted form: convert it \
                                           with `openssl pkcs8 -topk8`",
                    ));
                }
                "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => {
                    let certificate = Certificate::from_der(&block.der)
                        .map_err(|error| not_usable(format!("{error}: export it again")))?;
                    self.certificates.push(Arc::new(certificate));
                }
                "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
                    self.secrets.push(private_key::from_der(&block.der).ok_or_else(damaged)?);
                }
                "ENCRYPTED PRIVATE KEY" => {
                    let secret = private_key::from_encrypted(&block.der, password, budget)?;
                    self.secrets.push(secret.ok_or_else(damaged)?);
                }
                "PKCS7" | "CMS" => {
                    self.take_signed_data(&block.der)?;
                }
                "X509 CRL" => {
                    crl::parse(&block.der).ok_or_else(damaged)?;
                    self.crls.push(block.der.to_vec());
                }
                // EC PARAMETERS, DH PARAMETERS, PUBLIC KEY: nothing that is needed.
                _ => {}
            }
        }
        if self.certificates.is_empty() && self.crls.is_empty() && self.secrets.is_empty() {
            return Err(unknown());
        }
        Ok(())
    }

    /// Takes all that is in a PKCS#7 file, or nothing: who imports believes that what he gave is there.
    fn take_signed_data(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        let signed = SignedData::parse(bytes).map_err(|error| match error {
            CmsError::OverLimit => not_usable(format!(
                "a PKCS#7 file with more than {CERTIFICATES_MAX} certificates or {CRLS_MAX} revocation lists: give them as PEM \
                 (`openssl pkcs7 -print_certs`)"
            )),
            _ => not_usable("a damaged PKCS#7 file"),
        })?;
        let unread = |what: &str, place: usize| {
            not_usable(format!(
                "{what} {place} of the PKCS#7 file cannot be read, and nothing of it is used: leave it out"
            ))
        };
        if let Some(place) = signed.unreadable.first() {
            return Err(unread("certificate", *place));
        }
        if let Some(place) = signed.crls.iter().position(|der| crl::parse(der).is_none()) {
            return Err(unread("revocation list", place.saturating_add(1)));
        }
        self.certificates.extend(signed.certificates);
        self.crls.extend(signed.crls);
        Ok(())
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (certificates, secrets) = (self.certificates.len(), self.secrets.len());
        write!(f, "Material({certificates} certificates, {secrets} keys)")
    }
}

impl fmt::Debug for ImportedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImportedKey({})", self.certificate.fingerprint())
    }
}

/// Issuers upwards, without the root, the nearest first. Where several bear an issuer's name (its key was changed, or others
/// certify it too) those are taken whose key made the signature. Each certificate is taken once, so that cross-certificates end.
pub(crate) fn chain_of(leaf: &Certificate, all: &[Arc<Certificate>]) -> Vec<Arc<Certificate>> {
    let mut chain: Vec<Arc<Certificate>> = Vec::new();
    let mut issuers = issuers_of(leaf, all);
    for place in 0..CHAIN_MAX {
        for issuer in issuers {
            if chain.len() < CHAIN_MAX && !chain.contains(issuer) {
                chain.push(Arc::clone(issuer));
            }
        }
        let Some(next) = chain.get(place) else { break };
        issuers = issuers_of(next, all);
    }
    chain
}

/// Who may have issued a certificate: all of the name where no signature can be verified, which others may be able to.
fn issuers_of<'a>(below: &Certificate, all: &'a [Arc<Certificate>]) -> Vec<&'a Arc<Certificate>> {
    let is_named = |candidate: &&Arc<Certificate>| {
        candidate.is_authority()
            && candidate.subject_der() == below.issuer_der()
            && !candidate.is_self_issued()
    };
    let named: Vec<_> = all.iter().filter(is_named).collect();
    if named.len() < 2 {
        return named;
    }
    let signed = named.iter().copied().filter(|issuer| is_issued_by(below, issuer));
    let signed: Vec<_> = signed.collect();
    if signed.is_empty() { named } else { signed }
}

/// DER of what may be BER: NSS and Windows write such files.
fn to_der(bytes: &[u8]) -> Option<std::borrow::Cow<'_, [u8]>> {
    transcode::to_der(bytes).ok()
}

fn not_usable(why: impl Into<String>) -> ImportError {
    ImportError::NotUsable(why.into())
}

fn unknown() -> ImportError {
    not_usable("neither certificate nor key: give PEM, DER, PKCS#7 or PKCS#12")
}

/// REQUIREMENTS K7.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// REQUIREMENTS K6.
const CHAIN_MAX: usize = 8;
/// The first octet of everything in DER here.
const SEQUENCE: u8 = 0x30;

#[cfg(test)]
mod tests;
