//! `/metrics` (Prometheus), `/livez` and `/readyz`, for this machine only.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

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
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "metrics and health are no longer served");
        }
    });
    Ok(address)
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
