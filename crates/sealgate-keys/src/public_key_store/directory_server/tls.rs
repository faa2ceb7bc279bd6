//! How the way to a directory server is protected: TLS 1.2 or later, the server's certificate and host name verified,
//! ours shown where it is our name (SASL EXTERNAL).

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};

use super::{LdapBind, fault};
use crate::error::StoreError;

/// Reads the files and makes the configuration of every connection.
pub(super) fn client_config(
    ca: Option<&Path>,
    bind: &LdapBind,
) -> Result<Arc<ClientConfig>, StoreError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| fault("servers", error))?
        .with_root_certificates(roots(ca)?);
    let config = match bind {
        LdapBind::Anonymous | LdapBind::Simple { .. } => builder.with_no_client_auth(),
        LdapBind::Certificate { certificate, key } => {
            let chain = certificates("certificate", certificate)?;
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| fault("key", format!("{}: {error}", key.display())))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| fault("key", format!("{}: {error}", key.display())))?
        }
    };
    Ok(Arc::new(config))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates("ca", path)? {
                roots
                    .add(certificate)
                    .map_err(|error| fault("ca", format!("{}: {error}", path.display())))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(fault("ca", "this system has no authorities: name a file with them"));
            }
        }
    }
    Ok(roots)
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let shown = path.display();
    let read = CertificateDer::pem_file_iter(path)
        .and_then(|blocks| blocks.take(CERTIFICATES_MAX).collect::<Result<Vec<_>, _>>())
        .map_err(|error| fault(key, format!("{shown}: {error}")))?;
    if read.is_empty() {
        return Err(fault(key, format!("{shown}: no certificate in it: give PEM")));
    }
    Ok(read)
}

/// Certificates of one file.
const CERTIFICATES_MAX: usize = 1000;
