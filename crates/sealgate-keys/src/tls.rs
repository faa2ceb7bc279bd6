//! TLS towards key management and directory servers: always verified (REQUIREMENTS A16), with a client certificate where
//! the server wants one.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use crate::error::StoreError;
use crate::tls_files;

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
    let roots = authorities
        .map_or_else(system_roots, tls_files::authorities)
        .map_err(|why| fault("ca", why))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault("servers", error.to_string()))?
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = tls_files::certificates(identity.certificate)
                .map_err(|why| fault("certificate", why))?;
            let key = tls_files::secret_key(identity.key).map_err(|why| fault("key", why))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| fault("key", tls_files::unusable(identity.key, &error)))?
        }
    };
    Ok(Arc::new(config))
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
