//! The certificates of RFC 9216 and RFC 4134, in this store.

use std::fs;
use std::path::Path;

use super::making::{parse, year};
use crate::trust::*;

#[test]
fn rfc_9216_certificates_are_trusted_under_their_authority_and_across() {
    let read = |name: &str| read_pem(&format!("rfc9216/certs/{name}.crt"));
    let (rsa, ed25519) = (read("rsa-ca-root"), read("ed25519-ca-root"));
    let (to_rsa, to_ed25519) = (read("rsa-ca-cross"), read("ed25519-ca-cross"));
    let at = year(2026);
    for (name, home, away, across) in [
        ("alice", &rsa, &ed25519, &to_rsa),
        ("bob", &rsa, &ed25519, &to_rsa),
        ("carlos", &ed25519, &rsa, &to_ed25519),
        ("dana", &ed25519, &rsa, &to_ed25519),
    ] {
        let signing = read(&format!("{name}.sign"));
        let reading = read(&format!("{name}.encrypt"));
        let under =
            |anchor: &Arc<Certificate>| TrustStore::new(vec![anchor.clone()], vec![], vec![]);
        let (home, away) = (under(home), under(away));
        let crossing = [across.clone()];
        assert_eq!(home.judge(&signing, &[], Purpose::Sign, at), Trust::Trusted, "{name}");
        assert_eq!(home.judge(&reading, &[], Purpose::Encrypt, at), Trust::Trusted, "{name}");
        assert_eq!(home.judge(&signing, &[], Purpose::Encrypt, at), Trust::WrongUsage, "{name}");
        assert_eq!(home.judge(&reading, &[], Purpose::Sign, at), Trust::WrongUsage, "{name}");
        assert_eq!(away.judge(&signing, &[], Purpose::Sign, at), Trust::Untrusted, "{name}");
        assert_eq!(away.judge(&signing, &crossing, Purpose::Sign, at), Trust::Trusted, "{name}");
        assert_eq!(home.judge(&signing, &[], Purpose::Sign, year(2053)), Trust::Expired, "{name}");
    }
}

#[test]
fn rfc_4134_certificates_are_weak_or_of_a_kind_that_is_not_taken() {
    let read = |name: &str| fs::read(fixtures().join("rfc4134").join(name)).unwrap();
    let certificate = |name: &str| parse(&read(name));
    let judged = |anchor: &str, name: &str, crls| {
        let store = TrustStore::new(vec![certificate(anchor)], vec![], crls);
        store.judge(&certificate(name), &[], Purpose::Sign, year(2004))
    };
    // SHA-1 and 1024 bits.
    assert_eq!(judged("CarlRSASelf.cer", "AliceRSASignByCarl.cer", vec![]), Trust::Weak);
    assert_eq!(judged("CarlRSASelf.cer", "DianeRSASignByCarl.cer", vec![]), Trust::Weak);
    // DSA is off (REQUIREMENTS K5).
    let dsa = judged("CarlDSSSelf.cer", "AliceDSSSignByCarlNoInherit.cer", vec![]);
    assert_eq!(dsa, Trust::Untrusted);
    // The CRL that revokes Alice is signed with MD5: it counts for nothing.
    let crls = vec![read("CarlRSACRLForAll.crl")];
    assert_eq!(judged("CarlRSASelf.cer", "AliceRSASignByCarl.cer", crls), Trust::Weak);
}

fn read_pem(path: &str) -> Arc<Certificate> {
    let text = fs::read_to_string(fixtures().join(path)).unwrap();
    let base64: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    parse(&base64_simd::STANDARD.decode_to_vec(base64.trim()).unwrap())
}

fn fixtures() -> &'static Path {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures"));
    assert!(folder.is_dir(), "fixtures were left out: {} is absent", folder.display());
    folder
}
