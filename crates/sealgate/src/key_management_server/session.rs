//! One connection: KMIP messages in, answers out, one after another.
//!
//! What is no KMIP ends the connection; so does silence, slowness and an identity that a reload no longer names.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use sealgate_keys::kmip::attribute::Attribute;
use sealgate_keys::kmip::enumeration::{Operation, ResultReason};
use sealgate_keys::kmip::message::{
    RequestItem, RequestMessage, ResponseItem, ResponseMessage, Version,
};
use sealgate_keys::kmip::request::Request;
use sealgate_keys::kmip::response::Failure;
use sealgate_keys::kmip::ttlv::{DecodeError, MESSAGE_BYTES_MAX};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::KeyServer;
use super::audit::Event;
use super::entitlement::{Client, Peer};
use super::incoming::Incoming;
use super::operations::{Desk, REFUSED, failure};
use super::rate::Bucket;
use super::register::Pending;

/// One connection.
pub(super) struct Session<S> {
    pub(super) server: Arc<KeyServer>,
    pub(super) peer: Peer,
    pub(super) stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Serves it to its end.
    pub(super) async fn run(mut self) {
        let Some(first) = self.identify() else { return };
        let clients = &self.server.clients;
        let Some(_place) = clients.admit(&first.name, CONNECTIONS_PER_CLIENT_MAX, usize::MAX)
        else {
            tracing::warn!(client = first.name, "too many connections of one client");
            return;
        };
        match self.serve().await {
            Ok(()) => {}
            Err(error) => {
                tracing::info!(client = first.name, peer = first.peer, %error, "connection ended");
            }
        }
    }

    /// Who it is now; nobody where the configuration does not name it, which is audited.
    fn identify(&self) -> Option<Client> {
        let settings = self.server.settings();
        if !self.peer.is_of(settings.authorities.as_deref()) {
            let peer = self.peer.describe();
            tracing::info!(
                peer,
                "its certificate was verified with authorities that are ours no more"
            );
            return None;
        }
        let client = self.peer.identify(&settings.relays);
        if client.is_none() {
            let event = Event {
                client: &self.peer.names(),
                peer: &self.peer.describe(),
                operation: "connect",
                outcome: REFUSED,
                reason: "no [[key_server.relay]] names it",
                ..Event::default()
            };
            // The connection is closed either way.
            let _ = self.server.audit.record(&event);
        }
        client
    }

    async fn serve(&mut self) -> io::Result<()> {
        let mut pending = Pending::default();
        let mut incoming = Incoming::new();
        let mut pace = Bucket::full(MESSAGES_PER_SECOND, Instant::now());
        let mut draining = self.server.draining.subscribe();
        loop {
            if *draining.borrow() {
                return Ok(());
            }
            tokio::select! {
                begun = timeout(IDLE_MAX, incoming.begin(&mut self.stream)) => match begun {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) | Err(_) => return Ok(()),
                    Ok(Err(error)) => return Err(error),
                },
                _ = draining.changed() => return Ok(()),
            }
            let message = timeout(MESSAGE_TIME_MAX, incoming.message(&mut self.stream));
            let message = message.await.map_err(|_| slow("a message comes too slowly"))??;
            let Some(client) = self.identify() else { return Ok(()) };
            let (answer, is_last) = self.answer(&message, &client, &mut pending, &mut pace).await;
            drop(message);
            let answer = fitting(&answer);
            let written = timeout(MESSAGE_TIME_MAX, self.stream.write_all(&answer)).await;
            written.map_err(|_| slow("an answer is taken too slowly"))??;
            self.stream.flush().await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// The answer, and whether it is the last one.
    async fn answer(
        &self,
        bytes: &[u8],
        client: &Client,
        pending: &mut Pending,
        pace: &mut Bucket,
    ) -> (ResponseMessage, bool) {
        let message = match read(bytes) {
            Ok(message) => message,
            Err(refused) => return (unread(refused), true),
        };
        let cost: f64 = message.items.iter().map(cost_of).sum();
        let wait = pace.borrow(cost, MESSAGES_PER_SECOND, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let settings = self.server.settings();
        let scanned = AtomicBool::new(false);
        let mut desk = Desk { server: &self.server, settings: &settings, client, pending, scanned };
        let mut items = Vec::with_capacity(message.items.len());
        for RequestItem { batch_id, request } in message.items {
            let operation = request.operation();
            let result = desk.answer(request).await;
            let failed = result.is_err();
            items.push(ResponseItem { operation: Some(operation), batch_id, result });
            // Batch Error Continuation Option: Stop (KMIP 1.4 §6.13), the default.
            if failed {
                break;
            }
        }
        if desk.scanned.into_inner() {
            tokio::time::sleep(pace.borrow(LISTING_COST, MESSAGES_PER_SECOND, Instant::now()))
                .await;
        }
        (ResponseMessage { version: message.version, items }, false)
    }
}

fn read(bytes: &[u8]) -> Result<RequestMessage, Failure> {
    let invalid = |error: DecodeError| failure(ResultReason::InvalidMessage, error.to_string());
    let version = RequestMessage::version_of(bytes).map_err(invalid)?;
    if !Version::SPOKEN.contains(&version) {
        let Version { major, minor } = version;
        let text = format!("KMIP {major}.{minor} is not spoken here: take 1.2, 1.3 or 1.4");
        return Err(failure(ResultReason::InvalidMessage, text));
    }
    let message = RequestMessage::decode(bytes).map_err(invalid)?;
    if message.items.is_empty() {
        return Err(failure(ResultReason::InvalidMessage, "a message without a batch item"));
    }
    Ok(message)
}

fn unread(refused: Failure) -> ResponseMessage {
    let [version, ..] = Version::SPOKEN;
    let item = ResponseItem { operation: None, batch_id: None, result: Err(refused) };
    ResponseMessage { version, items: vec![item] }
}

/// As it goes out; what is too long for the other end is refused instead.
fn fitting(answer: &ResponseMessage) -> Zeroizing<Vec<u8>> {
    let now = jiff::Timestamp::now().as_second();
    let bytes = answer.encode(now);
    if bytes.len() <= MESSAGE_BYTES_MAX {
        return bytes;
    }
    let text = "the answer is too long for one message: ask for less at once";
    let result = Err(failure(ResultReason::GeneralFailure, text));
    let operation: Option<Operation> = answer.items.first().and_then(|item| item.operation);
    let item = ResponseItem { operation, batch_id: None, result };
    ResponseMessage { version: answer.version, items: vec![item] }.encode(now)
}

/// Listings of everything read far more than other requests.
fn cost_of(item: &RequestItem) -> f64 {
    match &item.request {
        Request::Locate { attributes, .. }
            if !attributes.iter().any(|one| matches!(one, Attribute::Name(_))) =>
        {
            LISTING_COST
        }
        _ => 1.0,
    }
}

fn slow(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// Connections of one client: more than its crypto threads need.
const CONNECTIONS_PER_CLIENT_MAX: usize = 64;
/// Silence between messages.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// How long a message, or its answer, may be on its way.
const MESSAGE_TIME_MAX: Duration = Duration::from_secs(20);
/// Requests of one connection; who asks for more waits.
const MESSAGES_PER_SECOND: f64 = 2000.0;
/// Requests that a listing is worth.
const LISTING_COST: f64 = 200.0;
