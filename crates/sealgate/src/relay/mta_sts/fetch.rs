//! Fetching a policy: one GET over HTTPS with a verified certificate; no redirect is followed and no cache asked (RFC 8461 §3.3).

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::route::in_order;
use super::{Assurance, Clients, Names};

/// The text at `https://HOST/.well-known/mta-sts.txt`.
///
/// # Errors
/// What went wrong, for the log.
pub(super) async fn fetch(host: &str, names: &Names, clients: &Clients) -> Result<String, String> {
    let fetching = fetch_from_any(host, names, clients);
    tokio::time::timeout(FETCH_MAX, fetching).await.map_err(|_| "it took too long".to_owned())?
}

async fn fetch_from_any(host: &str, names: &Names, clients: &Clients) -> Result<String, String> {
    let (addresses, _) = names.addresses(host).await.map_err(|why| format!("look-up: {why:?}"))?;
    let addresses = in_order(&addresses, HTTPS_PORT);
    let mut last = "no address".to_owned();
    for (number, address) in (1..).zip(&addresses) {
        // The last one has all the time that is left.
        let patience = if number == addresses.len() { FETCH_MAX } else { CONNECT_MAX };
        match tokio::time::timeout(patience, connect(*address, host, clients)).await {
            Ok(Ok(tls)) => return fetch_over(tls, host).await,
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: it took too long"),
        }
    }
    Err(last)
}

async fn connect(
    address: SocketAddr,
    host: &str,
    clients: &Clients,
) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let config = clients.config(&Assurance::Named(vec![name.clone()]))?;
    let tcp = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let tls = TlsConnector::from(config).connect(name, tcp).await;
    tls.map_err(|error| format!("TLS: {error}"))
}

async fn fetch_over(tls: TlsStream<TcpStream>, host: &str) -> Result<String, String> {
    let http = http1::Builder::new().max_buf_size(HEADER_BYTES_MAX).handshake(TokioIo::new(tls));
    let (mut sender, connection) = http.await.map_err(|error| error.to_string())?;
    let request = Request::get(PATH)
        .header(HOST, host)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("text/plain") {
            return Err("it is not text/plain".to_owned());
        }
        let body = Limited::new(response.into_body(), POLICY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        String::from_utf8(body.to_vec()).map_err(|error| error.to_string())
    };
    // The connection is driven by the side of the exchange and ends with it.
    tokio::select! {
        text = exchange => text,
        Err(error) = connection => Err(error.to_string()),
    }
}

const PATH: &str = "/.well-known/mta-sts.txt";
const HTTPS_PORT: u16 = 443;
/// RFC 8461 §3.3 suggests a minute; the sender of the mail waits meanwhile.
const FETCH_MAX: Duration = Duration::from_secs(20);
/// To one address, with TLS, where there are others.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// RFC 8461 §3.3 suggests 64 KiB.
const POLICY_BYTES_MAX: usize = 64 << 10;
/// Response header.
const HEADER_BYTES_MAX: usize = 16 << 10;
