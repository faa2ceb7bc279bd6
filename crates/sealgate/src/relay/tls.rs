//! STARTTLS, both sides: our certificate as a server, and what we believe as a client ([`client`]).
//!
//! As a client towards port 25 of the Internet TLS is opportunistic (RFC 7435) unless the recipient's domain (DANE, MTA-STS)
//! or our policy asks for more: where it is offered it is used, and the certificate is not verified, because nothing says
//! which name or authority it should have. It protects from those who only listen. What protects the content
//! is the message's own cryptography.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use sealgate_keys::tls_files;

use crate::config::TlsFiles;

pub(crate) mod client;

/// The server's side.
///
/// # Errors
/// A line that says which file and why.
pub(crate) fn server(files: &TlsFiles) -> Result<Arc<ServerConfig>, String> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(
            tls_files::certificates(&files.certificate)?,
            tls_files::secret_key(&files.key)?,
        )
        .map_err(|error| tls_files::unusable(&files.certificate, &error))?;
    Ok(Arc::new(config))
}

/// A server that talks only to clients with a certificate of one of the authorities in `client_ca`. Nothing is resumed, so
/// that each connection shows its certificate and each reload holds for all.
///
/// # Errors
/// A line that says which file and why.
pub(crate) fn authenticating_server(
    files: &TlsFiles,
    client_ca: &Path,
) -> Result<Arc<ServerConfig>, String> {
    let roots = tls_files::authorities(client_ca)?;
    let provider = provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| tls_files::unusable(client_ca, &error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            tls_files::certificates(&files.certificate)?,
            tls_files::secret_key(&files.key)?,
        )
        .map_err(|error| tls_files::unusable(&files.certificate, &error))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
