//! `/metrics` (Prometheus), `/livez` and `/readyz`, for this machine only.
//!
//! One request a connection, and few connections at a time, none for long: every user of the machine gets here, and idle
//! connections must not use up the descriptors that mail needs (CWE-770).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::relay::Relay;

/// Listens and serves; returns the address.
///
/// # Errors
/// Where the address cannot be listened on.
pub(crate) async fn serve(relay: Arc<Relay>, address: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::other(format!("observe: {address}: {error}")))?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(relay);
    tokio::spawn(accept(listener, router));
    Ok(address)
}

/// Takes connections, as many as there are places; further ones wait in the system's queue.
async fn accept(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    answer(stream, router).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "metrics and health: cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one request. What is wrong with a connection is its client's affair.
async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME_MAX).keep_alive(false);
    let service = TowerToHyperService::new(router);
    let serving = server.serve_connection(TokioIo::new(stream), service);
    let _ = timeout(CONNECTION_TIME_MAX, serving).await;
}

async fn readyz(State(relay): State<Arc<Relay>>) -> (StatusCode, String) {
    match relay.readiness().await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn metrics(State(relay): State<Arc<Relay>>) -> String {
    relay.measure();
    super::drain();
    super::metrics().map(PrometheusHandle::render).unwrap_or_default()
}

/// A scraper and a probe or two.
const CONNECTIONS_MAX: usize = 16;
/// From the connection to the end of the request's header section.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// From the connection to the end of the answer; `/readyz` takes a few seconds where everything is away.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// After a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::Instant;

    use super::*;

    const REQUEST: &[u8] = b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n";

    /// Sends what is there, and how long it takes until the connection is closed, with what came.
    async fn exchange(
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        request: &[u8],
    ) -> (Duration, String) {
        let began = Instant::now();
        stream.write_all(request).await.unwrap();
        let mut text = Vec::new();
        let reading = stream.read_to_end(&mut text);
        let read = timeout(Duration::from_secs(600), reading).await.expect("it is left open");
        read.unwrap();
        (began.elapsed(), String::from_utf8(text).unwrap())
    }

    // Over a stream in memory: virtual time goes on while the system carries octets.
    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_whatever_its_client_does() {
        let forever = || async { sleep(Duration::from_secs(3600)).await };
        let router = Router::new().route("/slow", get(forever)).route("/", get(|| async { "x" }));
        for (request, longest) in [
            (&b""[..], HEADER_TIME_MAX),
            (b"GET / HTTP/1.1\r\nHost: ", HEADER_TIME_MAX),
            // No second request is waited for.
            (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", Duration::ZERO),
            (REQUEST, CONNECTION_TIME_MAX),
        ] {
            let (client, server) = tokio::io::duplex(4096);
            tokio::spawn(answer(server, router.clone()));
            let (took, text) = exchange(client, request).await;
            let of = String::from_utf8_lossy(request);
            assert!(took <= longest + Duration::from_secs(1), "{of}: {took:?} {text}");
            assert_eq!(text.ends_with("\r\n\r\nx"), longest.is_zero(), "{of}: {text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_bounded_and_others_wait() {
        let [now, most] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let peak = Arc::clone(&most);
        let slow = move || {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(Duration::from_secs(1)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                "served"
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, Router::new().route("/slow", get(slow))));
        let fetch = || async move {
            let stream = TcpStream::connect(address).await.unwrap();
            exchange(stream, REQUEST).await.1
        };
        let clients: Vec<_> = (0..CONNECTIONS_MAX * 3).map(|_| tokio::spawn(fetch())).collect();
        for client in clients {
            assert!(client.await.unwrap().ends_with("served"));
        }
        assert_eq!(peak.load(Ordering::SeqCst), CONNECTIONS_MAX);
    }
}
