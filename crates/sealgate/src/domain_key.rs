//! The key that our domains sign with (DKIM, ARC): a file named in the configuration, read when that is.

use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use sealgate_core::dkim::Signer;
use sealgate_core::keys::SoftwareKey;

use crate::config::Dkim;

/// Reads the key and makes the signer.
///
/// # Errors
/// A line that says which file and why.
pub(crate) fn signer(dkim: &Dkim) -> Result<Arc<Signer>, String> {
    let unusable = |why: &str| format!("[dkim] key {}: {why}", dkim.key.display());
    let pem =
        PrivateKeyDer::from_pem_file(&dkim.key).map_err(|error| unusable(&error.to_string()))?;
    let PrivateKeyDer::Pkcs8(der) = &pem else {
        return Err(unusable("no PKCS#8: write it with `openssl pkcs8 -topk8 -nocrypt`"));
    };
    let key = SoftwareKey::from_pkcs8(der.secret_pkcs8_der())
        .map_err(|_| unusable("neither RSA of 2048 bits or more nor Ed25519"))?;
    let kind = key.kind();
    let signer = Signer::new(Arc::new(key), kind, &dkim.selector, dkim.domains.clone());
    signer.map(Arc::new).map_err(|why| format!("[dkim]: {why}"))
}
