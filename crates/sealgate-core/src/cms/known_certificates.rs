//! Certificates of messages that were parsed before: a correspondent sends the same ones with every mail.
//!
//! Parsing depends on nothing but the octets, so what is kept under their SHA-256 is what parsing would give; nothing is
//! judged here. Bounded by two generations, as the verdicts of `crate::trust` are: when the younger is full it becomes
//! the elder, and what the elder held and no message had since is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};

use crate::keys::{Certificate, CertificateError, Fingerprint};

/// As [`Certificate::from_der`], or what that gave for the same octets before.
///
/// # Errors
/// [`CertificateError`]
pub(super) fn parse(der: &[u8]) -> Result<Arc<Certificate>, CertificateError> {
    static KNOWN: LazyLock<Known> = LazyLock::new(Known::default);
    KNOWN.parse(der)
}

#[derive(Default)]
struct Known {
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    younger: HashMap<Fingerprint, Arc<Certificate>>,
    elder: HashMap<Fingerprint, Arc<Certificate>>,
}

impl Known {
    fn parse(&self, der: &[u8]) -> Result<Arc<Certificate>, CertificateError> {
        let sha256 = digest(&SHA256, der);
        let fingerprint = match sha256.as_ref().try_into() {
            Ok(octets) if der.len() <= KEPT_BYTES_MAX => Fingerprint(octets),
            _ => return Certificate::from_der(der).map(Arc::new),
        };
        if let Some(known) = self.recall(fingerprint) {
            return Ok(known);
        }
        let certificate = Arc::new(Certificate::from_der(der)?);
        self.lock().insert(fingerprint, Arc::clone(&certificate));
        Ok(certificate)
    }

    fn recall(&self, fingerprint: Fingerprint) -> Option<Arc<Certificate>> {
        let mut generations = self.lock();
        if let Some(certificate) = generations.younger.get(&fingerprint) {
            return Some(Arc::clone(certificate));
        }
        let certificate = generations.elder.remove(&fingerprint)?;
        generations.insert(fingerprint, Arc::clone(&certificate));
        Some(certificate)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, fingerprint: Fingerprint, certificate: Arc<Certificate>) {
        if self.younger.len() >= GENERATION_MAX {
            self.elder = std::mem::take(&mut self.younger);
        }
        self.younger.insert(fingerprint, certificate);
    }
}

/// Certificates in each of the two generations.
const GENERATION_MAX: usize = 500;
/// Larger ones are rare, and are parsed each time.
const KEPT_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_same_octets_are_parsed_once_and_what_is_kept_is_bounded() {
        let known = Known::default();
        let der = testing::Authority::new("NEC").certificate.der().to_vec();
        let first = known.parse(&der).unwrap();
        assert!(Arc::ptr_eq(&first, &known.parse(&der).unwrap()));
        assert_eq!(*first, Certificate::from_der(&der).unwrap());
        let mut broken = der.clone();
        broken.truncate(der.len() - 1);
        assert!(known.parse(&broken).is_err() && known.parse(&broken).is_err());
        for number in 0..3 * GENERATION_MAX {
            let mut octets = [0; 32];
            octets[..8].copy_from_slice(&number.to_be_bytes());
            known.lock().insert(Fingerprint(octets), Arc::clone(&first));
            assert!(Arc::ptr_eq(&first, &known.parse(&der).unwrap()), "it is asked for");
        }
        let generations = known.lock();
        assert!(generations.younger.len() + generations.elder.len() <= 2 * GENERATION_MAX);
    }
}
