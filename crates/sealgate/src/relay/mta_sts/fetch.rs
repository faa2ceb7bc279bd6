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
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::route::in_order;
use super::{Assurance, Clients, Names};

/// The text at `https://HOST/.well-known/mta-sts.txt`.
///
/// # Errors
/// What went wrong, for the log.
pub(super) async fn fetch(host: &str, names: &Names, clients: &Clients) -> Result<String, String> {
    let deadline = Instant::now() + FETCH_MAX;
    let fetching = fetch_from_any(host, names, clients, deadline);
    timeout_at(deadline, fetching).await.map_err(late)?
}

async fn fetch_from_any(
    host: &str,
    names: &Names,
    clients: &Clients,
    deadline: Instant,
) -> Result<String, String> {
    let (addresses, _) = names.addresses(host).await.map_err(|why| format!("look-up: {why:?}"))?;
    let addresses = in_order(&addresses, HTTPS_PORT);
    let mut last = "no address".to_owned();
    for (left, address) in (1..=addresses.len()).rev().zip(&addresses) {
        match connect(*address, host, clients, (left, deadline)).await {
            Ok(tls) => return fetch_over(tls, host).await,
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

/// To one address of those that are left. One that is there has its share of the time for TLS, which is longer than it takes to
/// find out that one is not.
async fn connect(
    address: SocketAddr,
    host: &str,
    clients: &Clients,
    (left, deadline): (usize, Instant),
) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let config = clients.config(&Assurance::Named(vec![name.clone()]))?;
    // The last one has all the time that is left.
    let patience = if left > 1 { CONNECT_MAX } else { FETCH_MAX };
    let tcp = timeout(patience, TcpStream::connect(address)).await.map_err(late)?;
    let tcp = tcp.map_err(|error| error.to_string())?;
    let rest = deadline.saturating_duration_since(Instant::now());
    let share = rest / u32::try_from(left).unwrap_or(u32::MAX);
    let tls = timeout(share, TlsConnector::from(config).connect(name, tcp)).await.map_err(late)?;
    tls.map_err(|error| format!("TLS: {error}"))
}

fn late(_: Elapsed) -> String {
    "it took too long".to_owned()
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
/// To one address, where there are others.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// RFC 8461 §3.3 suggests 64 KiB.
const POLICY_BYTES_MAX: usize = 64 << 10;
/// Response header.
const HEADER_BYTES_MAX: usize = 16 << 10;
