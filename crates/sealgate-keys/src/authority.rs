//! The organisation's own certificate authority (RFC 5280, profile of RFC 8550).
//!
//! `init` makes it, `secret-key generate` uses it. Its key is RSA-3072, because that is the strongest kind that every
//! correspondent's mail client verifies, gpgsm and old Outlook too; it signs a few certificates a year. A mailbox gets
//! two certificates, one for signing and one for encryption, because a signing key must never have to be kept for
//! reading old mail. Certificates end with the authority at the latest; a successor (`ca renew`) is another authority of its
//! name, beside which it stays trusted. Ed25519 cannot encrypt: its partner is P-256, which correspondents read, where X25519 is rare.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, RsaKeySize, SanType, SerialNumber,
};
use sealgate_core::address::{Address, Domain};
use sealgate_core::keys::{Certificate, Timestamp};
use zeroize::Zeroizing;

use crate::error::StoreError;
use crate::owner::Owner;

mod capabilities;
pub(crate) mod revocation_list;

/// The kind of key pairs to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Signs with Ed25519 (RFC 8419); decrypts with P-256.
    Ed25519,
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// RSA, 2048 bits.
    Rsa2048,
    /// RSA, 3072 bits.
    Rsa3072,
    /// RSA, 4096 bits.
    Rsa4096,
}

impl Algorithm {
    fn generate(self) -> Result<KeyPair, rcgen::Error> {
        let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
        match self {
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            Self::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::Rsa2048 => rsa(RsaKeySize::_2048),
            Self::Rsa3072 => rsa(RsaKeySize::_3072),
            Self::Rsa4096 => rsa(RsaKeySize::_4096),
        }
    }

    /// The kind of key that decrypts for a signer of this kind.
    fn for_encryption(self) -> Self {
        match self {
            Self::Ed25519 => Self::P256,
            other => other,
        }
    }

    fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096)
    }
}

/// A key and its certificate.
pub(crate) struct KeyAndCertificate {
    pub(crate) pkcs8: Zeroizing<Vec<u8>>,
    pub(crate) certificate: Arc<Certificate>,
}

/// An authority that can issue.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    not_after: i64,
}

impl Authority {
    /// Makes a new authority for an organisation.
    pub(crate) fn generate(
        domain: &Domain,
        now: SystemTime,
    ) -> Result<KeyAndCertificate, StoreError> {
        let key = Algorithm::Rsa3072.generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, domain.as_str());
        params.distinguished_name.push(DnType::CommonName, format!("sealgate CA of {domain}"));
        params.serial_number = Some(random_serial()?);
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + AUTHORITY_VALIDITY).into();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(KeyAndCertificate {
            pkcs8: Zeroizing::new(key.serialize_der()),
            certificate: parsed(certificate.der())?,
        })
    }

    /// Takes up an authority that was made before.
    pub(crate) fn load(pkcs8: &[u8], certificate: &Certificate) -> Result<Self, StoreError> {
        let key = KeyPair::try_from(pkcs8).map_err(failed)?;
        let der = certificate.der().to_vec().into();
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(failed)?;
        Ok(Self { issuer, not_after: certificate.not_after().0 })
    }

    /// The last moment at which an authority with this certificate issues.
    pub(crate) fn issues_until(certificate: &Certificate) -> Timestamp {
        Timestamp(certificate.not_after().0.saturating_sub(REMAINING_SECS_MIN))
    }

    /// Makes a signing and an encryption key with their certificates, which end with the authority at the latest.
    pub(crate) fn issue(
        &self,
        owner: &Owner,
        algorithm: Algorithm,
        now: SystemTime,
    ) -> Result<[KeyAndCertificate; 2], StoreError> {
        let signing = self.issue_one(owner, algorithm, Usage::Sign, now)?;
        let encryption = self.issue_one(owner, algorithm.for_encryption(), Usage::Encrypt, now)?;
        Ok([signing, encryption])
    }

    fn issue_one(
        &self,
        owner: &Owner,
        algorithm: Algorithm,
        usage: Usage,
        now: SystemTime,
    ) -> Result<KeyAndCertificate, StoreError> {
        if unix_seconds(now) > self.not_after.saturating_sub(REMAINING_SECS_MIN) {
            let why = "it ends within 90 days, and with it what it would issue; make its successor with `sealgate ca renew`";
            return Err(StoreError::Authority(why.to_owned()));
        }
        // Nobody believes a certificate for longer than its issuer.
        let end = Duration::from_secs(u64::try_from(self.not_after).unwrap_or_default());
        let not_after = (now + CERTIFICATE_VALIDITY).min(SystemTime::UNIX_EPOCH + end);
        let address = usage.address(owner)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, usage.common_name(owner));
        params.subject_alt_names = vec![alternative_name(&address)?];
        params.serial_number = Some(random_serial()?);
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = not_after.into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = usage.key_usages(algorithm);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
        params.custom_extensions = vec![capabilities::extension(algorithm.is_rsa())?];
        let key = algorithm.generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(KeyAndCertificate {
            pkcs8: Zeroizing::new(key.serialize_der()),
            certificate: parsed(certificate.der())?,
        })
    }
}

/// What one of the two certificates is for.
#[derive(Clone, Copy)]
enum Usage {
    Encrypt,
    Sign,
}

impl Usage {
    /// RFC 8550 §4.4.2.
    fn key_usages(self, algorithm: Algorithm) -> Vec<KeyUsagePurpose> {
        match self {
            Self::Encrypt if algorithm.is_rsa() => vec![KeyUsagePurpose::KeyEncipherment],
            Self::Encrypt => vec![KeyUsagePurpose::KeyAgreement],
            Self::Sign => {
                vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::ContentCommitment]
            }
        }
    }

    /// The name in the certificate. A domain's are those of RFC 3183 §3.1.1 and §4.1.
    fn address(self, owner: &Owner) -> Result<Address, StoreError> {
        let local_part = self.domain_role();
        match owner {
            Owner::Mailbox(address) => Ok(address.clone()),
            Owner::Domain(domain) => Address::parse(&format!("{local_part}@{domain}"))
                .map_err(|error| StoreError::Input(format!("{owner}: {error}"))),
        }
    }

    fn common_name(self, owner: &Owner) -> String {
        match owner {
            Owner::Mailbox(address) => address.to_string(),
            Owner::Domain(_) => self.domain_role().to_owned(),
        }
    }

    fn domain_role(self) -> &'static str {
        match self {
            Self::Encrypt => "domain-confidentiality-authority",
            Self::Sign => "domain-signing-authority",
        }
    }
}

/// rfc822Name, or SmtpUTF8Mailbox (RFC 9598 §3) where the local part is not ASCII.
fn alternative_name(address: &Address) -> Result<SanType, StoreError> {
    let text = address.to_string();
    if address.needs_smtputf8() {
        return Ok(SanType::OtherName((SMTP_UTF8_MAILBOX.to_vec(), text.as_str().into())));
    }
    let name = text.as_str().try_into().map_err(failed)?;
    Ok(SanType::Rfc822Name(name))
}

/// 128 bits with the first one clear, so that the number is positive in 16 octets, and the second one set, so that it
/// never starts with a zero octet.
fn random_serial() -> Result<SerialNumber, StoreError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| StoreError::Authority("the random number generator failed".to_owned()))?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

fn parsed(der: &[u8]) -> Result<Arc<Certificate>, StoreError> {
    let certificate = Certificate::from_der(der);
    certificate.map(Arc::new).map_err(|error| StoreError::Authority(error.to_string()))
}

fn failed(error: rcgen::Error) -> StoreError {
    StoreError::Authority(error.to_string())
}

fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

const DAY: Duration = Duration::from_secs(24 * 3600);
/// A correspondent's clock may be slow.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
/// With the skew at most the 825 days of the S/MIME Baseline Requirements (§6.3.2).
const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(824 * 24 * 3600);
/// Ten years.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(3652 * DAY.as_secs());
/// For how long a certificate must be good at least to be worth its issuing.
const REMAINING_SECS_MIN: i64 = 90 * 24 * 3600;
/// id-on-SmtpUTF8Mailbox, RFC 9598 §3.
const SMTP_UTF8_MAILBOX: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 8, 9];

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_SECS: u64 = DAY.as_secs();

    /// In its last years it issues for as long as it lasts itself.
    #[test]
    fn certificates_end_with_their_authority() {
        let now = SystemTime::now();
        let made = Authority::generate(&Domain::parse("nec.example").unwrap(), now).unwrap();
        let authority = Authority::load(&made.pkcs8, &made.certificate).unwrap();
        let owner: Owner = "alice@nec.example".parse().unwrap();
        let issued = |days: u64| {
            let at = now + Duration::from_secs(days * DAY_SECS);
            authority.issue(&owner, Algorithm::P256, at).map(|[sign, _]| {
                (sign.certificate.not_after().0 - unix_seconds(at))
                    / i64::try_from(DAY_SECS).unwrap()
            })
        };
        assert_eq!(issued(0), Ok(824));
        assert_eq!(issued(3652 - 825), Ok(824));
        assert_eq!(issued(3652 - 800), Ok(800));
        assert_eq!(issued(3652 - 90), Ok(90));
        let why = issued(3652 - 89).unwrap_err().to_string();
        assert!(why.contains("sealgate ca renew"), "{why}");
    }
}
