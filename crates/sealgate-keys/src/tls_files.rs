//! PEM files for TLS, of clients and servers: certificates, authorities, secret keys. In: a path. Out: what rustls takes, or one
//! line that says which file, what is wrong with it, and what to put there.

use std::fmt;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// All certificates of a file, one at least.
///
/// # Errors
/// A line about the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wanted =
        |why: &dyn fmt::Display| unusable(path, &format!("{why}: give certificates as PEM"));
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wanted(&error))?;
    if certificates.is_empty() {
        return Err(wanted(&"no certificate in it"));
    }
    Ok(certificates)
}

/// The same as authorities.
///
/// # Errors
/// A line about the file.
pub fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unusable(path, &error))?;
    }
    Ok(roots)
}

/// The first secret key of a file, in PKCS #8, PKCS #1 or SEC 1.
///
/// # Errors
/// A line about the file, without anything of what is in it.
pub fn secret_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        unusable(path, &format!("{error}: give a secret key as PEM, without a password"))
    })
}

/// The line about a file that is of no use.
pub fn unusable(path: &Path, why: &dyn fmt::Display) -> String {
    format!("{}: {why}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_use_is_told_with_the_file_and_what_to_give() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file.pem");
        let file = path.display().to_string();
        for (text, why) in [
            (None, "No such file"),
            (Some("minutes of a meeting"), "no "),
            (Some("-----BEGIN CERTIFICATE-----\n"), "missing"),
        ] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let about = |told: Result<(), String>, wanted: &str| {
                let told = told.unwrap_err();
                assert!(told.starts_with(&file) && told.contains(why), "{told}");
                assert!(told.contains(wanted), "{told}");
            };
            about(certificates(&path).map(drop), "give certificates as PEM");
            about(authorities(&path).map(drop), "give certificates as PEM");
            about(secret_key(&path).map(drop), "give a secret key as PEM");
        }
    }
}
