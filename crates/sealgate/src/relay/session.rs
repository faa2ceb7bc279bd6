//! One client's session: pumps octets into the core's SMTP server and answers its questions.
//!
//! Whom to admit is decided here by what listener the client came to (no open relay: REQUIREMENTS A13); what to do
//! with a message is [`Transaction`]'s. How long a client is waited for says `patience`.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sealgate_core::address::Address;
use sealgate_core::envelope::{Envelope, Recipient};
use sealgate_core::outbound::{self, Context};
use sealgate_core::policy::Encrypt;
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::report::Direction;
use sealgate_core::smtp::Protocol;
use sealgate_core::smtp::client::{ClientName, Identity};
use sealgate_core::smtp::command::Greeting;
use sealgate_core::smtp::server::{Discarded, Event, Server};
use sealgate_core::step::{KeyQuery, Keys};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::answers::Answers;
use super::budget::{Budget, Connection, Holder, Reservation};
use super::deliver::Outcome;
use super::done::Done;
use super::introduction::Introduction;
use super::listener::{Entrance, TurnedAway};
use super::route::{self, Hop};
use super::settle::Settled;
use super::stream::{READ_BYTES_FIRST, Stream, let_go};
use super::trace::{self, Origin};
use super::transaction::Transaction;
use super::transport::Demand;
use super::{Relay, Settings, client_name, off_the_clock, veil};
use crate::config::ClientAddress;

mod lines;
mod patience;

use patience::Receiving;

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    relay: Arc<Relay>,
    settings: Arc<Settings>,
    entrance: Entrance,
    peer: SocketAddr,
    /// Our end of the connection.
    local: SocketAddr,
    server: Server,
    stream: Stream,
    input: BytesMut,
    /// The transaction's, from MAIL on.
    id: String,
    /// The client's, where the mail server is told: looked up once.
    client_name: Option<ClientName>,
    /// What was learned for this transaction's RCPT commands.
    context: Option<Context>,
    memory: Reservation,
    receiving: Option<Receiving>,
    /// A command that has begun and not ended: how many ended before it, and when it was first waited for.
    unfinished: Option<(u64, Instant)>,
    draining: watch::Receiver<bool>,
    is_turned_away: bool,
    /// None where there are too many even of those who are turned away.
    place: Option<Connection>,
}

/// Whether the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    End,
    Go,
}

impl Session {
    /// A session on a new connection; turned away with `refusal` where there is one.
    pub(crate) fn new(
        relay: Arc<Relay>,
        settings: Arc<Settings>,
        entrance: Entrance,
        (stream, local, peer): (Stream, SocketAddr, SocketAddr),
        admission: Result<Connection, TurnedAway>,
    ) -> Self {
        let options = settings.server_options(entrance, &relay.downstream.inside_offers);
        let id = trace::transaction_id();
        let is_turned_away = admission.is_err();
        let (server, place) = match admission {
            Ok(place) => (Server::new(options), Some(place)),
            Err(TurnedAway { reply, place }) => {
                tracing::info!(id, peer = %peer.ip(), %reply, "connection refused");
                (Server::refusing(options, &reply), place)
            }
        };
        Self {
            memory: Reservation::new(&relay.memory, Holder::new(entrance.direction(), peer.ip())),
            draining: relay.draining.subscribe(),
            relay,
            settings,
            entrance,
            peer,
            local,
            server,
            stream,
            input: BytesMut::with_capacity(READ_BYTES_FIRST),
            id,
            client_name: None,
            context: None,
            receiving: None,
            unfinished: None,
            is_turned_away,
            place,
        }
    }

    /// Serves the client to the end.
    pub(crate) async fn run(mut self) {
        failpoint!("session.run");
        // An error here is the client's connection breaking: there is nobody to tell.
        let served = self.serve().await;
        if let Some(unfinished) = self.server.give_up() {
            self.unfinished(unfinished);
        }
        if let Some(hop) = self.mail_server().filter(|hop| hop.introduction.is_some()) {
            self.relay.downstream.pool.forget(&hop);
        }
        if served.is_ok() {
            self.linger().await;
        }
    }

    async fn serve(&mut self) -> io::Result<()> {
        failpoint!("session.start");
        loop {
            let next = match self.server.advance(&mut self.input) {
                Event::Close => {
                    self.say().await?;
                    return Ok(());
                }
                Event::Data => self.data(),
                Event::Discarded(discarded) => self.discarded(*discarded),
                Event::Mail { reverse_path, parameters } => {
                    self.learn_client_name().await;
                    self.mail(reverse_path, parameters.size_bytes)
                }
                Event::Message(message) => self.message(message.0, message.1).await?,
                Event::NeedAnswer => Next::End,
                Event::NeedInput => self.more_input().await?,
                Event::Recipient(recipient) => self.recipient(&recipient).await,
                Event::StartTls => self.start_tls().await?,
            };
            if next == Next::End {
                return Ok(());
            }
        }
    }

    /// Writes what is to be said; a client that does not read is not waited for without end.
    async fn say(&mut self) -> io::Result<()> {
        let patience = Duration::from_secs(self.settings.config.limits.idle_secs_max);
        timeout(patience, self.stream.write(self.server.output())).await.map_err(io::Error::from)?
    }

    /// Keeps the memory of all sessions within its budget (K10).
    fn account_for_content(&mut self) {
        if !self.memory.resize_for(self.server.held_bytes(), &self.budget()) {
            self.server.discard_message(Reply::from(&Refusal::Overloaded));
            self.memory.release();
        }
    }

    fn budget(&self) -> Budget {
        Budget::from(&self.settings.config.limits)
    }

    /// Who the client is by its address, where the mail server is told so by XCLIENT.
    async fn learn_client_name(&mut self) {
        let told = self.relay.settings().config.inside.client_address == ClientAddress::Xclient;
        let inbound = self.entrance.direction() == Direction::Inbound;
        if told && inbound && self.client_name.is_none() {
            let resolver = self.relay.downstream.router.resolver();
            self.client_name = Some(client_name::of(self.peer.ip(), &resolver).await);
        }
    }

    fn mail(&mut self, from: Option<Address>, size_bytes: Option<u64>) -> Next {
        failpoint!(blocking "session.mail");
        self.settings = self.relay.settings();
        self.id = trace::transaction_id();
        self.context = None;
        self.server.set_id(&self.id);
        let expected = usize::try_from(size_bytes.unwrap_or_default()).unwrap_or(usize::MAX);
        if self.server.is_too_large(size_bytes) {
            self.refused_early(from.as_ref(), None, &Refusal::TooLarge);
        } else if !self.memory.has_room_for(expected, &self.budget()) {
            self.refused_early(from.as_ref(), None, &Refusal::Overloaded);
        } else {
            self.server.accept();
        }
        failpoint!(blocking "session.mail_answered");
        Next::Go
    }

    async fn recipient(&mut self, recipient: &Recipient) -> Next {
        failpoint!("session.rcpt");
        let asked = Instant::now();
        match self.admit(recipient).await {
            Ok(()) => self.server.accept(),
            Err(refusal) => {
                let from = self.server.envelope().and_then(|e| e.reverse_path.clone());
                self.refused_early(from.as_ref(), Some(&recipient.address), &refusal);
            }
        }
        failpoint!("session.rcpt_answered");
        // Of many pipelined commands the first reply must not wait for the last. What breaks shows when it is read from.
        if asked.elapsed() > BATCH_MAX {
            let _ = self.say().await;
        }
        Next::Go
    }

    /// Whether mail to this address may come in here.
    async fn admit(&mut self, recipient: &Recipient) -> Result<(), Refusal> {
        let to = &recipient.address;
        let policy = Arc::clone(&self.settings.config.policy);
        match (self.entrance.direction(), policy.is_ours(to)) {
            // A mail server that trusts sealgate's address would send a routed one on, for whoever asks.
            (Direction::Inbound, true) if !to.is_routed() => {
                return self.ask_mail_server(recipient).await;
            }
            (Direction::Inbound, _) => return Err(Refusal::NotOurs(to.clone())),
            (Direction::Outbound, true) => {
                let text = "mail to our own domains is delivered by the mail server, not sent out";
                return Err(Refusal::NextHop(Reply::new(550, (5, 4, 6), text)));
            }
            (Direction::Outbound, false) => {}
        }
        let from = self.server.envelope().and_then(|envelope| envelope.reverse_path.clone());
        if policy.decide(from.as_ref(), to).encrypt != Encrypt::Require {
            return Ok(());
        }
        if self.context.is_none() {
            failpoint!("session.rcpt_context");
            self.context = Some(Transaction::context(&self.relay, &self.settings).await?);
        }
        let Some(context) = &self.context else { return Err(Refusal::Internal) };
        let mut keys = Keys::default();
        failpoint!("session.rcpt_look_up");
        let queries = [KeyQuery::Public(to.clone())];
        off_the_clock(self.relay.stores.answer(&queries, &mut keys)).await;
        failpoint!("session.rcpt_looked_up");
        match keys.public.get(to) {
            Some(answer) => outbound::admit_recipient(context, from.as_ref(), to, answer),
            None => Err(Refusal::KeysUnavailable),
        }
    }

    /// Whether the mail server takes mail for this recipient: its answer is ours.
    async fn ask_mail_server(&self, recipient: &Recipient) -> Result<(), Refusal> {
        if !self.settings.config.inside.check_recipients {
            return Ok(());
        }
        let Some(envelope) = self.server.envelope() else { return Err(Refusal::Internal) };
        let Some(hop) = self.mail_server() else { return Err(Refusal::Internal) };
        failpoint!("session.rcpt_ask");
        let answer =
            self.relay.recipients.admit(&self.relay.downstream, &hop, envelope, recipient).await;
        failpoint!("session.rcpt_asked");
        answer
    }

    /// Where opened mail goes, over connections of this session's own where the mail server is told about the client.
    fn mail_server(&self) -> Option<Hop> {
        let inbound = self.entrance.direction() == Direction::Inbound;
        let server = &self.settings.config.inside.mail_server;
        inbound.then(|| Hop {
            introduction: self.introduction(),
            ..route::fixed(server, Demand::default())
        })
    }

    /// What the mail server is told about the Internet's client.
    fn introduction(&self) -> Option<Introduction> {
        if self.entrance.direction() == Direction::Outbound {
            return None;
        }
        match self.settings.config.inside.client_address {
            ClientAddress::None => None,
            ClientAddress::Proxy => {
                Some(Introduction::Proxy { client: self.peer, server: self.local })
            }
            ClientAddress::Xclient => {
                let (greeting, hello) = self.server.hello().unwrap_or((Greeting::Helo, "unknown"));
                let extended = greeting != Greeting::Helo;
                Some(Introduction::Xclient(Identity {
                    address: self.peer,
                    name: self.client_name.clone().unwrap_or_default(),
                    hello: hello.to_owned(),
                    extended,
                }))
            }
        }
    }

    fn data(&mut self) -> Next {
        failpoint!(blocking "session.data");
        self.receiving = Some(Receiving::new(self.settings.config.limits.data_grace_secs));
        self.server.accept();
        Next::Go
    }

    async fn message(&mut self, envelope: Envelope, message: Bytes) -> io::Result<Next> {
        let dot = Instant::now();
        failpoint!("session.dot");
        let started = self.receiving.as_ref().map_or(dot, |receiving| receiving.since);
        let size_bytes = message.len();
        if !self.memory.resize_for(size_bytes, &self.budget()) {
            let reply = Reply::from(&Refusal::Overloaded);
            while self.server.replies_owed() > 0 {
                self.server.answer(&reply);
            }
            let received_bytes = u64::try_from(size_bytes).unwrap_or(u64::MAX);
            let (refusal, envelope) = (Some(reply), Some(envelope));
            return Ok(self.discarded(Discarded {
                refusal,
                decided: None,
                envelope,
                received_bytes,
            }));
        }
        self.receiving = None;
        failpoint!("session.memory_reserved");
        let transaction = self.transaction(envelope, message);
        let mut answers = Answers::new(transaction.envelope.recipients.len(), &self.id);
        let_go(&mut self.input);
        let outcome = self.drive(&transaction, &mut answers).await;
        failpoint!("session.driven");
        let Some(settled) = outcome else {
            failpoint!("session.aborted");
            self.memory.release();
            self.client_gone(&transaction.envelope, size_bytes, started.elapsed());
            return Ok(Next::End);
        };
        let keys = self.relay.stores.key_place();
        veil::wait(&settled.report, size_bytes, keys, dot).await;
        failpoint!("session.last_reply");
        let protocol = self.entrance.protocol();
        if protocol == Protocol::Lmtp {
            answers.complete();
            self.say_known(&mut answers).await;
        }
        let reply = answers.last_reply(&mut self.server, protocol, &settled.result);
        let written = self.say().await;
        failpoint!("session.last_replied");
        let reply_lost = written.is_err() || answers.client_is_gone;
        // From the Internet the sender's second attempt may come twice: not everybody may fill the key database.
        let is_ours = transaction.direction == Direction::Outbound || settled.partial;
        if reply_lost && is_ours {
            transaction.remember(answers.outcomes()).await;
        }
        let recipients = &transaction.envelope.recipients;
        self.record(settled.report, &reply, recipients, size_bytes, started.elapsed())
            .from(transaction.envelope.reverse_path.as_ref())
            .partial(settled.partial, settled.repair)
            .recipients(settled.recipients)
            .transport(transaction.transport.get())
            .reply_lost(reply_lost)
            .write();
        failpoint!("session.recorded");
        transaction.confirm(&reply);
        self.memory.release();
        if answers.client_is_gone { Ok(Next::End) } else { written.map(|()| Next::Go) }
    }

    fn transaction(&self, envelope: Envelope, message: Bytes) -> Transaction {
        Transaction {
            relay: Arc::clone(&self.relay),
            settings: Arc::clone(&self.settings),
            direction: self.entrance.direction(),
            upstream: self.entrance.protocol(),
            id: self.id.clone(),
            envelope,
            origin: self.origin(),
            introduction: self.introduction(),
            transport: OnceLock::new(),
            attempt: OnceLock::new(),
            message,
            done: Done::default(),
        }
    }

    /// Runs the transaction and listens to the client meanwhile; `None` when it left before anything was released.
    async fn drive(&mut self, transaction: &Transaction, answers: &mut Answers) -> Option<Settled> {
        let released = AtomicBool::new(false);
        let (sender, mut receiver) = mpsc::unbounded_channel::<Outcome>();
        let lmtp = self.entrance.protocol() == Protocol::Lmtp;
        // On the heap: a client who is silent between two messages takes no room for one.
        let mut running = Box::pin(transaction.run(&released, &sender));
        // Invariant 11: a panic ends this message only.
        let mut caught = std::pin::pin!(std::future::poll_fn(|context| {
            let poll = AssertUnwindSafe(|| running.as_mut().poll(context));
            match std::panic::catch_unwind(poll) {
                Ok(poll) => poll.map(Some),
                Err(_) => std::task::Poll::Ready(None),
            }
        }));
        let settled = loop {
            let listen = !answers.client_is_gone && self.input.len() < INPUT_BYTES;
            tokio::select! {
                biased;
                settled = &mut caught => break settled,
                Some(outcome) = receiver.recv() => {
                    failpoint!("session.answer");
                    answers.take(outcome);
                    if lmtp {
                        // A client that reads slowly, or needs a pause, holds up its own answers and no delivery.
                        let mut saying = std::pin::pin!(self.say_known(answers));
                        tokio::select! {
                            biased;
                            settled = &mut caught => {
                                saying.await;
                                break settled;
                            }
                            () = &mut saying => {}
                        }
                    }
                    if answers.client_is_gone && !released.load(Ordering::Acquire) {
                        return None;
                    }
                }
                read = self.stream.read(&mut self.input), if listen => {
                    if !matches!(read, Ok(octets) if octets > 0) {
                        if !released.load(Ordering::Acquire) {
                            return None;
                        }
                        failpoint!("session.client_gone");
                        // Too late to take back: the delivery goes on (O6).
                        answers.client_is_gone = true;
                    }
                }
            }
        };
        while let Ok(outcome) = receiver.try_recv() {
            answers.take(outcome);
        }
        Some(match settled {
            Some(settled) => settled,
            None => transaction.interrupted(answers.outcomes()).await,
        })
    }

    /// LMTP: says the answers that are known, each apart where the client needs that.
    async fn say_known(&mut self, answers: &mut Answers) {
        let pause = self.settings.config.inside.reply_pause;
        while answers.say_next(&mut self.server) {
            failpoint!("session.lmtp_reply");
            if !pause.is_zero() && !answers.client_is_gone {
                answers.client_is_gone |= self.say().await.is_err();
                tokio::time::sleep(pause).await;
            }
        }
        answers.client_is_gone |= self.say().await.is_err();
        failpoint!("session.lmtp_replied");
    }

    async fn start_tls(&mut self) -> io::Result<Next> {
        failpoint!("session.starttls");
        self.say().await?;
        failpoint!("session.starttls_replied");
        let direction = self.entrance.direction();
        let Some(tls) = self.settings.tls(direction).cloned() else { return Ok(Next::End) };
        let Some(tcp) = self.stream.take_plain() else { return Ok(Next::End) };
        let shaking = timeout(HANDSHAKE_MAX, TlsAcceptor::from(tls).accept(tcp)).await;
        let shaken = shaking.map_err(io::Error::from).and_then(|shaken| shaken);
        let tls = shaken.inspect_err(|error| {
            // Of the Internet there is much to be heard that concerns nobody.
            if direction == Direction::Outbound {
                tracing::warn!(client = %self.peer.ip(), %error, "a client from inside failed in TLS");
            }
        })?;
        self.stream = Stream::Tls(Box::new(tls.into()));
        failpoint!("session.tls_started");
        self.server.tls_started();
        Ok(Next::Go)
    }

    fn origin(&self) -> Origin {
        let (greeting, hello) = self.server.hello().unwrap_or((Greeting::Helo, "unknown"));
        let tls = self.stream.tls_description();
        // RFC 3848.
        let protocol = match (greeting, tls.is_some()) {
            (Greeting::Helo, false) => "SMTP",
            (Greeting::Lhlo, false) => "LMTP",
            (Greeting::Lhlo, true) => "LMTPS",
            (Greeting::Ehlo, false) => "ESMTP",
            (Greeting::Ehlo | Greeting::Helo, true) => "ESMTPS",
        };
        Origin { hello: hello.to_owned(), peer: self.peer.ip(), protocol, tls }
    }
}

/// While a message is delivered, no more is read once so much is there.
const INPUT_BYTES: usize = 64 << 10;
/// A reply that took longer goes out by itself.
const BATCH_MAX: Duration = Duration::from_secs(1);
/// TLS handshakes.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
