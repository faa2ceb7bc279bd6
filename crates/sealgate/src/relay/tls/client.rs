//! What we believe of a server that we connect to: nothing, its name, or its TLSA records.
//!
//! In: an [`Assurance`]. Out: a configuration of rustls whose handshake fails where the server is not so.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use sealgate_keys::tls_files;

use super::provider;
use crate::relay::dane::{self, Association};

/// How sure of a server a connection must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Assurance {
    /// Encrypted where possible, by whomever (RFC 7435).
    Opportunistic,
    /// Encrypted, by whomever.
    Encrypted,
    /// A certificate of an authority that we know, for one of these names (RFC 9525).
    Named(Vec<ServerName<'static>>),
    /// What its TLSA records say (RFC 7672).
    Dane(Vec<Association>, Vec<ServerName<'static>>),
}

/// Makes configurations.
#[derive(Debug)]
pub(crate) struct Clients {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    /// Shared, so that sessions are resumed where nothing is verified.
    unverified: Arc<ClientConfig>,
    /// The same, and the server holds the key of its certificate, whoever's that is.
    witnessed: Arc<ClientConfig>,
}

impl Clients {
    /// Authorities of a PEM file, or the system's.
    ///
    /// # Errors
    /// A line that says which file and why.
    pub(crate) fn new(ca: Option<&Path>) -> Result<Self, String> {
        let roots = match ca {
            Some(path) => tls_files::authorities(path)?,
            // Where there are none, no certificate is good: that shows where one is asked for.
            None => {
                let mut roots = RootCertStore::empty();
                let system = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(system.certs);
                roots
            }
        };
        let (provider, roots) = (provider(), Arc::new(roots));
        let unverified = configuration(&provider, &roots, Assurance::Opportunistic, false)?;
        let witnessed = configuration(&provider, &roots, Assurance::Opportunistic, true)?;
        Ok(Self { provider, roots, unverified, witnessed })
    }

    /// The configuration for an assurance.
    ///
    /// # Errors
    /// What rustls says; only if the program was built wrongly.
    pub(crate) fn config(&self, assurance: &Assurance) -> Result<Arc<ClientConfig>, String> {
        match assurance {
            Assurance::Opportunistic | Assurance::Encrypted => Ok(Arc::clone(&self.unverified)),
            verified => configuration(&self.provider, &self.roots, verified.clone(), true),
        }
    }

    /// The configuration for whoever, of whom it is to be said afterwards whether [`Self::verify`] would have taken him.
    pub(crate) fn witnessing(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.witnessed)
    }

    /// Whether a server that was not asked to prove its name could have.
    ///
    /// # Errors
    /// What is wrong with its certificates, by the words of RFC 8460 §4.3.
    pub(crate) fn verify(
        &self,
        host: &str,
        chain: &[CertificateDer<'_>],
    ) -> Result<(), &'static str> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| HOST_MISMATCH)?;
        let (end_entity, intermediates) = chain.split_first().ok_or(NOT_TRUSTED)?;
        let algorithms = &self.provider.signature_verification_algorithms;
        let now = UnixTime::now();
        verify_named(&self.roots, &[name], end_entity, intermediates, now, algorithms)
            .map_err(|error| type_of(&error))
    }
}

fn configuration(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    assurance: Assurance,
    asks_for_key: bool,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::clone(provider);
    let roots = Arc::clone(roots);
    let verifier = Verifier { provider: Arc::clone(&provider), roots, assurance, asks_for_key };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What went wrong in a handshake, by the words of RFC 8460 §4.3.
pub(crate) fn failure_type(error: &io::Error) -> &'static str {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    inner.map_or(VALIDATION_FAILURE, type_of)
}

fn type_of(error: &Error) -> &'static str {
    match error {
        Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "certificate-expired"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                HOST_MISMATCH
            }
            _ => NOT_TRUSTED,
        },
        _ => VALIDATION_FAILURE,
    }
}

/// A path to an authority that we know, and one of the names (RFC 9525).
fn verify_named(
    roots: &RootCertStore,
    names: &[ServerName<'_>],
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let certificate = ParsedCertificate::try_from(end_entity)?;
    verify_server_cert_signed_by_trust_anchor(
        &certificate,
        roots,
        intermediates,
        now,
        algorithms.all,
    )?;
    if !names.iter().any(|name| verify_server_name(&certificate, name).is_ok()) {
        return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
    }
    Ok(())
}

/// Asks for what the assurance demands, and perhaps that the server holds the key of its certificate. Where that is nobody's to
/// verify a signature proves nothing, and rustls would have to read a certificate that may be one of version 1, with a short key
/// or an unknown extension: mail would leave in plain for that.
struct Verifier {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    assurance: Assurance,
    asks_for_key: bool,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("assurance", &self.assurance).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match &self.assurance {
            Assurance::Opportunistic | Assurance::Encrypted => {}
            Assurance::Dane(associations, names) => {
                dane::verify(associations, names, end_entity, intermediates, now, algorithms)?;
            }
            Assurance::Named(names) => {
                verify_named(&self.roots, names, end_entity, intermediates, now, algorithms)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !self.asks_for_key {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !self.asks_for_key {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Words of RFC 8460 §4.3.
const HOST_MISMATCH: &str = "certificate-host-mismatch";
const NOT_TRUSTED: &str = "certificate-not-trusted";
/// Whatever else TLS failed for (RFC 8460 §4.3.3).
pub(crate) const VALIDATION_FAILURE: &str = "validation-failure";

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConnection, ServerConfig, ServerConnection, SupportedProtocolVersion};

    use super::*;

    #[derive(Debug)]
    struct Always(Arc<CertifiedKey>);

    impl ResolvesServerCert for Always {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    /// One with a certificate that has an extension which nobody knows and everybody must.
    fn odd_server(version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["mx.abc.example".to_owned()]).unwrap();
        let mut odd = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999], vec![5, 0]);
        odd.set_criticality(true);
        params.custom_extensions.push(odd);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = provider().key_provider.load_private_key(der).unwrap();
        let certified = CertifiedKey { cert: vec![certificate], key, ocsp: None };
        let config = ServerConfig::builder_with_provider(provider());
        let config = config.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
        Arc::new(config.with_cert_resolver(Arc::new(Always(Arc::new(certified)))))
    }

    fn handshake(
        config: Arc<ClientConfig>,
        version: &'static SupportedProtocolVersion,
    ) -> Result<(), Error> {
        let name = ServerName::try_from("mx.abc.example").unwrap();
        let mut client = ClientConnection::new(config, name).unwrap();
        let mut server = ServerConnection::new(odd_server(version)).unwrap();
        while client.is_handshaking() {
            let mut octets = Vec::new();
            client.write_tls(&mut octets).unwrap();
            server.read_tls(&mut octets.as_slice()).unwrap();
            server.process_new_packets()?;
            octets.clear();
            server.write_tls(&mut octets).unwrap();
            client.read_tls(&mut octets.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn an_odd_certificate_is_no_reason_to_send_in_plain_where_nobodys_is_asked_for() {
        let clients = Clients::new(None).unwrap();
        let names = vec![ServerName::try_from("mx.abc.example").unwrap()];
        for version in [&TLS12, &TLS13] {
            for assurance in [Assurance::Opportunistic, Assurance::Encrypted] {
                let config = clients.config(&assurance).unwrap();
                assert_eq!(handshake(config, version), Ok(()), "{assurance:?}");
            }
            let named = clients.config(&Assurance::Named(names.clone())).unwrap();
            assert!(handshake(named, version).is_err());
            assert!(
                handshake(clients.witnessing(), version).is_err(),
                "nothing is to be said of it"
            );
        }
    }
}
