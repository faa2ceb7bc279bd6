//! The way to a directory server: TCP, TLS from the start or begun by StartTLS (RFC 4511 §4.14), and the guard before the library.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bytes::BytesMut;
use ldap3::asn1::{PL, parse_tag};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::guard::{guarded, next_message};
use super::one_line;
use super::server::{Security, Server};
use crate::tcp;

/// Connects, by this time; what comes out is a stream for the library. Whoever calls keeps the time after that.
///
/// # Errors
/// What went wrong, in one line.
pub(super) async fn open(
    server: &Server,
    tls: Option<&Arc<ClientConfig>>,
    deadline: Instant,
) -> Result<UnixStream, String> {
    let Server { host, port, security } = server;
    let mut stream = connect(host, *port, deadline).await.map_err(|error| error.to_string())?;
    if *security == Security::StartTls {
        start_tls(&mut stream).await?;
    }
    let guarded = match (security, tls) {
        (Security::Plain, _) => guarded(stream),
        (Security::StartTls | Security::Tls, Some(tls)) => guarded(begin(stream, host, tls).await?),
        (Security::StartTls | Security::Tls, None) => return Err("TLS is not set up".to_owned()),
    };
    guarded.map_err(|error| error.to_string())
}

async fn connect(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let addresses: Vec<_> = lookup_host((host, port)).await?.collect();
    tcp::connect(&addresses, deadline.into_std()).await
}

async fn begin(
    stream: TcpStream,
    host: &str,
    tls: &Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, String> {
    let name =
        ServerName::try_from(host.to_owned()).map_err(|error| one_line(&error.to_string()))?;
    let begun = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
    begun.map_err(|error| one_line(&error.to_string()))
}

/// Asks for TLS. Nothing may stand behind the answer: whoever put it there was not the server that TLS will show.
async fn start_tls(stream: &mut TcpStream) -> Result<(), String> {
    let failed = |error: io::Error| one_line(&error.to_string());
    stream.write_all(START_TLS).await.map_err(failed)?;
    let mut received = BytesMut::new();
    let answer = next_message(stream, &mut received).await.map_err(failed)?;
    let answer = answer.ok_or_else(|| "the connection ended".to_owned())?;
    if !received.is_empty() {
        return Err("it goes on before TLS has begun".to_owned());
    }
    match result_code(&answer) {
        Some(0) => Ok(()),
        Some(code) => Err(format!("refuses StartTLS: result {code}")),
        None => Err("an answer that is no LDAP".to_owned()),
    }
}

/// The result code of an ExtendedResponse (RFC 4511 §4.12).
fn result_code(message: &[u8]) -> Option<u8> {
    let (_, message) = parse_tag(message).ok()?;
    let PL::C(members) = message.payload else { return None };
    let response = members.into_iter().nth(1).filter(|member| member.id == EXTENDED_RESPONSE)?;
    let PL::C(members) = response.payload else { return None };
    match members.into_iter().next()?.payload {
        PL::P(octets) => octets.last().copied(),
        PL::C(_) => None,
    }
}

/// An ExtendedRequest of the name 1.3.6.1.4.1.1466.20037, as message 1.
const START_TLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
/// RFC 4511 §4.12: [APPLICATION 24].
const EXTENDED_RESPONSE: u64 = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public_key_store::directory_server::guard::check_depth;

    #[test]
    fn the_request_is_whole_and_its_answer_is_read() {
        assert!(check_depth(START_TLS).is_ok());
        let answer = |code| {
            [0x30, 0x0c, 0x02, 0x01, 0x01, 0x78, 0x07, 0x0a, 0x01, code, 0x04, 0x00, 0x04, 0x00]
        };
        assert_eq!(result_code(&answer(0)), Some(0));
        assert_eq!(result_code(&answer(2)), Some(2));
        assert_eq!(result_code(START_TLS), None);
        assert_eq!(result_code(b"\x30\x00"), None);
    }
}
