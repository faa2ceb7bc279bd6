//! Who a TLS client is: the names that its certificate carries.
//!
//! In: a certificate that TLS has verified, DER. Out: its subject's common name and its DNS names, in lower case.

use der::Decode;
use x509_cert::Certificate;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The names of a certificate (RFC 5280 §4.1.2.6, §4.2.1.6); none where it cannot be read, or has more than
/// `NAMES_MAX`. A subject with several common names has none: which of them counts is not clear.
pub fn of_certificate(der: &[u8]) -> Vec<String> {
    read(der).filter(|names| names.len() <= NAMES_MAX).unwrap_or_default()
}

fn read(der: &[u8]) -> Option<Vec<String>> {
    let certificate = Certificate::from_der(der).ok()?;
    let certificate = certificate.tbs_certificate();
    let mut names: Vec<String> = Vec::new();
    let of_subject: Vec<_> =
        certificate.subject().iter().filter(|one| one.oid == COMMON_NAME).collect();
    if let [one] = of_subject.as_slice() {
        let text = std::str::from_utf8(one.value.value()).ok()?;
        names.push(text.to_ascii_lowercase());
    }
    if let Some((_, alternatives)) = certificate.get_extension::<SubjectAltName>().ok()? {
        for name in alternatives.0 {
            if let GeneralName::DnsName(name) = name {
                names.push(name.as_str().to_ascii_lowercase());
            }
        }
    }
    names.dedup();
    Some(names)
}

/// id-at-commonName, RFC 5280 appendix A.1.
const COMMON_NAME: der::asn1::ObjectIdentifier = der::asn1::ObjectIdentifier::new_unwrap("2.5.4.3");
/// More are no relay's.
const NAMES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn common_name_and_dns_names_are_read_in_lower_case() {
        let mut params =
            CertificateParams::new(vec!["Gate2.nec.example".to_owned(), "192.0.2.1".to_owned()])
                .unwrap();
        params.distinguished_name.push(DnType::CommonName, "Gate1.NEC.example");
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(of_certificate(made.der()), ["gate1.nec.example", "gate2.nec.example"]);
        assert!(of_certificate(b"0").is_empty());
    }
}
