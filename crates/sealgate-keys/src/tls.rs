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

/// What a verifying client needs; authorities of the system where no file is given.
///
/// # Errors
/// [`StoreError::Input`] with the file and why.
pub(crate) fn client_config(
    authorities: Option<&Path>,
    identity: Option<ClientIdentity<'_>>,
) -> Result<Arc<ClientConfig>, StoreError> {
    let roots = match authorities {
        Some(path) => roots_of(path)?,
        None => system_roots()?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Input(format!("TLS: {error}")))?
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates(identity.certificate)?;
            let key = PrivateKeyDer::from_pem_file(identity.key)
                .map_err(|error| unusable(identity.key, &error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| unusable(identity.certificate, &error))?
        }
    };
    Ok(Arc::new(config))
}

fn roots_of(path: &Path) -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unusable(path, &error))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let what = "no authority in the system's store: name a file with `ca`".to_owned();
        return Err(StoreError::Input(what));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(path, &error))?;
    if certificates.is_empty() {
        return Err(unusable(path, &"no certificate in this PEM file"));
    }
    Ok(certificates)
}

fn unusable(path: &Path, why: &dyn fmt::Display) -> StoreError {
    StoreError::Input(format!("{}: {why}", path.display()))
}
