//! A small world for the tests of both directions: an authority, people with keys, and policy.

use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};

use crate::address::{Address, Domain};
use crate::envelope::{Envelope, MailParameters, Recipient};
use crate::keys::{Capabilities, Certificate, OwnKey, PublicKey, SoftwareKey, Timestamp};
use crate::outbound::Context;
use crate::policy::{Decision, Policy};
use crate::step::{KeyQuery, Keys};
use crate::trust::TrustStore;

/// 2026-06-15, inside the validity of everything made here.
pub(crate) const NOW: Timestamp = Timestamp(1_781_500_000);

pub(crate) struct Authority {
    pub(crate) certificate: Arc<Certificate>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pair = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&pair).unwrap();
        Self {
            certificate: Arc::new(Certificate::from_der(certificate.der()).unwrap()),
            issuer: Issuer::new(params, pair),
        }
    }

    pub(crate) fn key(&self, address: &str, usage: KeyUsagePurpose) -> OwnKey {
        self.key_valid(address, usage, (2026, 2027))
    }

    pub(crate) fn key_valid(
        &self,
        address: &str,
        usage: KeyUsagePurpose,
        years: (i32, i32),
    ) -> OwnKey {
        let mut params = params(address);
        params.subject_alt_names = vec![SanType::Rfc822Name(address.try_into().unwrap())];
        params.key_usages = vec![usage];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        self.certify(address, params, &KeyPair::generate().unwrap())
    }

    /// To decrypt with.
    pub(crate) fn rsa_key(&self, address: &str) -> OwnKey {
        let mut params = params(address);
        params.subject_alt_names = vec![SanType::Rfc822Name(address.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
        let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        self.certify(address, params, &KeyPair::try_from(pkcs8.as_ref()).unwrap())
    }

    /// A CRL that revokes these certificates, in force now; DER.
    pub(crate) fn revocation_list(&self, revoked: &[&Certificate]) -> Vec<u8> {
        let revoked_certs = revoked.iter().map(|certificate| RevokedCertParams {
            serial_number: SerialNumber::from_slice(certificate.serial_bytes()),
            revocation_time: rcgen::date_time_ymd(2026, 3, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 6, 1),
            next_update: rcgen::date_time_ymd(2026, 7, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    fn certify(&self, address: &str, params: CertificateParams, pair: &KeyPair) -> OwnKey {
        let certificate = params.signed_by(pair, &self.issuer).unwrap();
        OwnKey {
            address: Some(Address::parse(address).unwrap()),
            certificate: Arc::new(Certificate::from_der(certificate.der()).unwrap()),
            chain: Vec::new(),
            secret: Arc::new(SoftwareKey::from_pkcs8(pair.serialized_der()).unwrap()),
            is_active: true,
        }
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    params
}

/// Someone with a key to sign and a key to decrypt.
pub(crate) struct Person {
    pub(crate) address: Address,
    pub(crate) signing: OwnKey,
    pub(crate) decryption: OwnKey,
}

impl Person {
    pub(crate) fn new(address: &str, authority: &Authority) -> Self {
        Self {
            address: Address::parse(address).unwrap(),
            signing: authority.key(address, KeyUsagePurpose::DigitalSignature),
            decryption: authority.key(address, KeyUsagePurpose::KeyAgreement),
        }
    }

    /// As the public key store of a correspondent holds it.
    pub(crate) fn public(&self, reads_gcm: bool) -> PublicKey {
        PublicKey {
            certificate: Arc::clone(&self.decryption.certificate),
            intermediates: Vec::new(),
            capabilities: Some(Capabilities { aes_256_gcm: reads_gcm, ..Capabilities::default() }),
            pinned: false,
            of_domain: false,
        }
    }
}

/// The stores' answers for people whose secret keys are ours and people whose certificates we hold.
pub(crate) fn keys(ours: &[&Person], correspondents: &[(&Person, bool)]) -> Keys {
    let mut keys = Keys::default();
    for person in ours {
        let address = person.address.clone();
        keys.own.insert(KeyQuery::Signing(address.clone()), Ok(vec![person.signing.clone()]));
        keys.own.insert(KeyQuery::Decryption(address), Ok(vec![person.decryption.clone()]));
    }
    for (person, reads_gcm) in correspondents {
        keys.public.insert(person.address.clone(), Ok(vec![person.public(*reads_gcm)]));
    }
    keys
}

pub(crate) fn context(domain: &str, authority: &Authority, defaults: Decision) -> Context {
    let anchors = vec![Arc::clone(&authority.certificate)];
    Context {
        policy: Arc::new(Policy {
            domains: vec![Domain::parse(domain).unwrap()],
            defaults,
            rules: Vec::new(),
        }),
        trust: Arc::new(TrustStore::new(anchors, Vec::new(), Vec::new())),
        hostname: format!("gate.{domain}"),
        now: NOW,
        clock_is_doubtful: false,
        stamp: NOW,
        dkim: None,
    }
}

pub(crate) fn envelope(from: &str, to: &[&str]) -> Envelope {
    Envelope {
        reverse_path: Some(Address::parse(from).unwrap()),
        recipients: to.iter().map(|one| Recipient::new(Address::parse(one).unwrap())).collect(),
        parameters: MailParameters::default(),
    }
}

pub(crate) fn joined(segments: &[Bytes]) -> Bytes {
    Bytes::from(segments.iter().flat_map(|segment| segment.to_vec()).collect::<Vec<u8>>())
}

/// Mails at each limit of a header section (REQUIREMENTS K1), which must be taken, and one beyond it. `head`: the fields
/// that they begin with, one a line.
pub(crate) fn mails_at_header_limits(head: &str) -> Vec<(Bytes, bool)> {
    let given = head.matches("\r\n").count();
    let fields = |count: usize| "X-A: b\r\n".repeat(count - given);
    let field = |bytes: usize| {
        let mut field = String::from("X-A:\r\n");
        while field.len() < bytes {
            let left = bytes - field.len();
            // No line is shorter than a space, a letter and its end.
            let line = if (901..904).contains(&left) { 800 } else { left.min(900) };
            field.push_str(&format!(" {}\r\n", "b".repeat(line - 3)));
        }
        field
    };
    let section = |bytes: usize| {
        let whole = field(50_000).repeat(5);
        // The empty line counts.
        let rest = field(bytes - head.len() - whole.len() - 2);
        whole + &rest
    };
    let mail = |more: String| Bytes::from(format!("{head}{more}\r\nfox\r\n"));
    vec![
        (mail(fields(1_000)), true),
        (mail(fields(1_001)), false),
        (mail(field(64 << 10)), true),
        (mail(field((64 << 10) + 1)), false),
        (mail(section(256 << 10)), true),
        (mail(section((256 << 10) + 1)), false),
    ]
}
