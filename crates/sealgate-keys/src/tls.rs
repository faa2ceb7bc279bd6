//! TLS towards key management and directory servers: always verified (REQUIREMENTS A16), with a client certificate where
//! the server wants one.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::error::StoreError;

/// PEM files that say who we are to a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientIdentity<'a> {
    /// Certificate and chain.
    pub(crate) certificate: &'a Path,
    /// Its secret key.
    pub(crate) key: &'a Path,
}

/// What a verifying client needs; authorities of the system where no file is given. `table` is where the configuration
/// names the files, as `ca`, `certificate` and `key`.
///
/// # Errors
/// [`StoreError::Input`] with table, key, file and why.
pub(crate) fn client_config(
    table: &str,
    authorities: Option<&Path>,
    identity: Option<ClientIdentity<'_>>,
) -> Result<Arc<ClientConfig>, StoreError> {
    let fault = |key: &str, why: String| StoreError::Input(format!("[{table}] {key}: {why}"));
    let roots = authorities.map_or_else(system_roots, roots_of).map_err(|why| fault("ca", why))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault("servers", error.to_string()))?
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain =
                certificates(identity.certificate).map_err(|why| fault("certificate", why))?;
            let key = PrivateKeyDer::from_pem_file(identity.key)
                .map_err(|error| fault("key", unusable(identity.key, &error)))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| fault("key", unusable(identity.key, &error)))?
        }
    };
    Ok(Arc::new(config))
}

fn roots_of(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unusable(path, &error))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (added, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err("this system has no authorities: name a file with them".to_owned());
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(path, &error))?;
    if certificates.is_empty() {
        return Err(unusable(path, &"no certificate in it: give PEM"));
    }
    Ok(certificates)
}

fn unusable(path: &Path, why: &dyn fmt::Display) -> String {
    format!("{}: {why}", path.display())
}
