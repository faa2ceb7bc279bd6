//! Makes authorities, certificates and CRLs for the tests of trust.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PublicKeyData, RevocationReason, RevokedCertParams, SanType,
    SerialNumber, SignatureAlgorithm, date_time_ymd,
};

use crate::keys::{Certificate, Timestamp};

/// An authority's name and key, and the certificate it was last given.
pub(super) struct Authority {
    pub(super) certificate: Arc<Certificate>,
    pub(super) issuer: Issuer<'static, KeyPair>,
    params: CertificateParams,
}

impl Authority {
    pub(super) fn root(name: &str) -> Self {
        Self::made(authority_params(name), None)
    }

    pub(super) fn under(&self, name: &str) -> Self {
        Self::made(authority_params(name), Some(self))
    }

    /// An authority whose certificate says what `adjust` makes of it; under itself when `above` is
    /// none.
    pub(super) fn adjusted(
        above: Option<&Self>,
        name: &str,
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let mut params = authority_params(name);
        adjust(&mut params);
        Self::made(params, above)
    }

    fn made(params: CertificateParams, above: Option<&Self>) -> Self {
        let pair = KeyPair::generate().unwrap();
        let made = match above {
            Some(above) => params.signed_by(&pair, &above.issuer).unwrap(),
            None => params.self_signed(&pair).unwrap(),
        };
        let certificate = parse(made.der());
        Self { certificate, issuer: Issuer::new(params.clone(), pair), params }
    }

    /// Another certificate for the same name and key.
    pub(super) fn again(&self, above: &Self, serial: u64, years: (i32, i32)) -> Arc<Certificate> {
        let mut params = self.params.clone();
        params.serial_number = Some(SerialNumber::from(serial));
        set_years(&mut params, years);
        parse(params.signed_by(self.issuer.key(), &above.issuer).unwrap().der())
    }

    /// A person's certificate.
    pub(super) fn person(&self, serial: u64) -> Arc<Certificate> {
        self.person_adjusted(serial, |_| {})
    }

    pub(super) fn person_adjusted(
        &self,
        serial: u64,
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> Arc<Certificate> {
        self.person_with_key(&KeyPair::generate().unwrap(), serial, adjust)
    }

    pub(super) fn person_with_key(
        &self,
        key: &impl PublicKeyData,
        serial: u64,
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> Arc<Certificate> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "A person");
        params.subject_alt_names = vec![SanType::Rfc822Name("a@p.example".try_into().unwrap())];
        params.serial_number = Some(SerialNumber::from(serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
        set_years(&mut params, (2024, 2028));
        adjust(&mut params);
        parse(params.signed_by(key, &self.issuer).unwrap().der())
    }

    /// A CRL from the start of one year to that of the other.
    pub(super) fn crl(
        &self,
        years: (i32, i32),
        revoked: &[(u64, i32, Option<RevocationReason>)],
    ) -> Vec<u8> {
        self.list(years, None, revoked)
    }

    /// The part of its CRL that is published at this place.
    pub(super) fn part_of_crl(
        &self,
        uri: &str,
        revoked: &[(u64, i32, Option<RevocationReason>)],
    ) -> Vec<u8> {
        let point = CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: vec![uri.to_owned()] },
            scope: None,
        };
        self.list((2024, 2028), Some(point), revoked)
    }

    fn list(
        &self,
        years: (i32, i32),
        issuing_distribution_point: Option<CrlIssuingDistributionPoint>,
        revoked: &[(u64, i32, Option<RevocationReason>)],
    ) -> Vec<u8> {
        let revoked_certs = revoked
            .iter()
            .map(|(serial, year, reason)| RevokedCertParams {
                serial_number: SerialNumber::from(*serial),
                revocation_time: date_time_ymd(*year, 1, 1),
                reason_code: *reason,
                invalidity_date: None,
            })
            .collect();
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(years.0, 1, 1),
            next_update: date_time_ymd(years.1, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

pub(super) fn set_years(params: &mut CertificateParams, (first, last): (i32, i32)) {
    params.not_before = date_time_ymd(first, 1, 1);
    params.not_after = date_time_ymd(last, 1, 1);
}

/// The first second of a year.
pub(super) fn year(year: i32) -> Timestamp {
    Timestamp(date_time_ymd(year, 1, 1).unix_timestamp())
}

/// An RSA key that nobody has: its modulus is odd, has this many bits, and is nothing else.
pub(super) struct RsaShaped(Vec<u8>);

impl RsaShaped {
    pub(super) fn new(bits: usize, exponent: &[u8]) -> Self {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= modulus.len() * 8 - bits;
        let content = [integer(&modulus), integer(exponent)].concat();
        Self([vec![0x30], length(content.len()), content].concat())
    }
}

impl PublicKeyData for RsaShaped {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_RSA_SHA256
    }
}

impl rcgen::SigningKey for RsaShaped {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(vec![1; self.0.len()])
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_years(&mut params, (2020, 2040));
    params
}

pub(super) fn parse(der: &[u8]) -> Arc<Certificate> {
    Arc::new(Certificate::from_der(der).unwrap())
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    let mut content = bytes.to_vec();
    if content[0] >= 0x80 {
        content.insert(0, 0);
    }
    [vec![2], length(content.len()), content].concat()
}

fn length(length: usize) -> Vec<u8> {
    match length {
        0..0x80 => vec![u8::try_from(length).unwrap()],
        _ => {
            let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
            vec![0x82, high, low]
        }
    }
}
