//! A scripted SMTP client within TLS: STARTTLS, then commands and replies.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::session::{Reply, Session};

/// One connection.
pub struct TlsSession {
    reader: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession").finish_non_exhaustive()
    }
}

impl TlsSession {
    /// Connects and starts TLS with a server of this name, whose authority is in the PEM file.
    pub fn connect(address: SocketAddr, name: &str, authority: &Path) -> Self {
        Self::connect_as(address, name, authority, None)
    }

    /// The same, by a client with a certificate of his own: PEM files of chain and key.
    pub fn connect_as(
        address: SocketAddr,
        name: &str,
        authority: &Path,
        client: Option<(&Path, &Path)>,
    ) -> Self {
        let (mut session, _) = Session::connect(address);
        assert_eq!(session.command("EHLO client.example").code, 250);
        assert_eq!(session.command("STARTTLS").code, 220);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = CertificateDer::pem_file_iter(chain).unwrap();
                let chain = chain.map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_file(key).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = StreamOwned::new(connection, session.into_stream());
        Self { reader: BufReader::new(stream) }
    }

    /// Sends one command line and reads its reply.
    pub fn command(&mut self, line: &str) -> Reply {
        self.send(&format!("{line}\r\n"));
        self.reply()
    }

    /// Sends this text, no more.
    pub fn send(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Sends one command line where the peer may have closed; its reply, where there is one.
    pub fn try_command(&mut self, line: &str) -> Option<Reply> {
        self.reader.get_mut().write_all(format!("{line}\r\n").as_bytes()).ok()?;
        let mut reply = String::new();
        let read = self.reader.read_line(&mut reply).ok()?;
        let (code, text) = reply.trim_end().split_at_checked(3).filter(|_| read > 0)?;
        Some(Reply { code: code.parse().ok()?, lines: vec![text.to_owned()] })
    }

    /// The next reply; panics when the peer closes instead.
    pub fn reply(&mut self) -> Reply {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.reader.read_line(&mut line).unwrap() > 0, "closed; so far {lines:?}");
            let (code, text) = line.trim_end().split_at(3);
            lines.push(text.get(1..).unwrap_or_default().to_owned());
            if !text.starts_with('-') {
                return Reply { code: code.parse().unwrap(), lines };
            }
        }
    }
}
