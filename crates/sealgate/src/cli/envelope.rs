//! What `seal` and `open` share: a message from standard input, driven as the relay would drive it.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealgate_core::address::Address;
use sealgate_core::envelope::{Envelope, MailParameters, Recipient};
use sealgate_core::keys::Timestamp;
use sealgate_core::message::Message;
use sealgate_core::outbound::Context;
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::report::{Delivered, Direction, ReplyReport, Report};
use sealgate_core::smtp::data::{Content, Decoder};
use sealgate_core::smtp::server::Limits;
use sealgate_core::step::{Done, Keys, Parcel, Step};
use serde_json::json;

use super::session::Session;
use super::{Failure, files, output};
use crate::relay::trace;
use crate::relay::transport::Transport;

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Destination<'a> {
    /// `--report`.
    pub(crate) report: Option<&'a Path>,
    /// `--out-dir`.
    pub(crate) out_dir: Option<&'a Path>,
}

/// One message and what the relay would know of it.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) context: Context,
    pub(crate) id: String,
    pub(crate) envelope: Envelope,
    pub(crate) message: Message,
    pub(crate) received: Vec<u8>,
}

impl Transaction {
    /// Reads the message, makes the rest up as the relay does, and refuses what the relay refuses before it looks for keys.
    pub(crate) async fn new(
        session: &Session,
        direction: Direction,
        from: Option<Address>,
        to: &[Address],
        at: Timestamp,
        destination: Destination<'_>,
    ) -> Result<Self, Failure> {
        let config = &session.config;
        let id = transaction_id()?;
        let refused = |reply| refuse(&reply, Report::new(direction, &id), destination);
        // The relay answers RCPT TO so.
        if direction == Direction::Inbound
            && let Some(stranger) = to.iter().find(|address| !config.policy.is_ours(address))
        {
            return Err(refused(Reply::from(&Refusal::NotOurs(stranger.clone()))));
        }
        let message = read_message(config.limits.message_bytes_max)?.map_err(refused)?;
        let dkim = config.dkim.as_ref().map(crate::domain_key::signer).transpose();
        let dkim = dkim.map_err(Failure::Configuration)?;
        let context = Context {
            policy: Arc::clone(&config.policy),
            trust: session.stores.trust().await?,
            hostname: config.hostname.clone(),
            now: at,
            clock_is_doubtful: false,
            stamp: at,
            dkim,
        };
        let eight_bit = !message.bytes().is_ascii();
        let addresses = || from.iter().chain(to);
        let parameters = MailParameters {
            eight_bit,
            smtputf8: addresses().any(Address::needs_smtputf8),
            ..MailParameters::default()
        };
        let received = received_field(&config.hostname, &id)?;
        let recipients = to.iter().cloned().map(Recipient::new).collect();
        let envelope = Envelope { reverse_path: from, recipients, parameters };
        let header = message.header_section();
        let checked = trace::check_loop(&message, &config.hostname, config.limits.hops_max)
            .and_then(|()| Transport::new(direction, &config.policy, &envelope, header));
        checked.map_err(|refusal| refused(Reply::from(&refusal)))?;
        Ok(Self { context, id, envelope, message, received })
    }
}

/// Steps a state machine until it is done, and writes what came out of it.
pub(crate) async fn drive(
    session: &Session,
    recipients: &[Address],
    destination: Destination<'_>,
    mut step: impl FnMut(&Keys) -> Step,
) -> Result<(), Failure> {
    let mut keys = Keys::default();
    for _ in 0..STEPS_MAX {
        match step(&keys) {
            Step::Want(queries) => session.stores.answer(&queries, &mut keys).await,
            Step::Done(done) => return deliver(*done, recipients, destination),
            Step::Refused(refused) => {
                let (refusal, report) = *refused;
                return Err(refuse(&Reply::from(&refusal), report, destination));
            }
        }
    }
    let line = "internal error: the message asks for keys without end";
    Err(Failure::Unavailable(line.to_owned()))
}

fn deliver(
    done: Done,
    recipients: &[Address],
    destination: Destination<'_>,
) -> Result<(), Failure> {
    let Done { parcels, report, .. } = done;
    if destination.out_dir.is_none() && parcels.len() != 1 {
        let line = format!("{} copies: say where they go with --out-dir DIR", parcels.len());
        return Err(Failure::Usage(line));
    }
    // First, so that a message that is out is no failure; and it stays only where that is so.
    write_report(&report, destination)?;
    let written = match destination.out_dir {
        Some(directory) => write_copies(directory, &parcels, recipients, &report),
        None => parcels.first().map_or(Ok(()), |one| output::write_message(&one.message.concat())),
    };
    if let (Err(_), Some(path)) = (&written, destination.report)
        && path.symlink_metadata().is_ok_and(|report| report.is_file())
    {
        let _ = std::fs::remove_file(path);
    }
    written
}

fn write_copies(
    directory: &Path,
    parcels: &[Parcel],
    recipients: &[Address],
    report: &Report,
) -> Result<(), Failure> {
    std::fs::create_dir_all(directory).map_err(|e| Failure::file(directory, &e))?;
    for (index, parcel) in parcels.iter().enumerate() {
        write_copy(directory, index.saturating_add(1), parcel, recipients, report)?;
    }
    Ok(())
}

/// NNN.eml, and NNN.json with its recipients.
fn write_copy(
    directory: &Path,
    number: usize,
    parcel: &Parcel,
    recipients: &[Address],
    report: &Report,
) -> Result<(), Failure> {
    let path = |extension: &str| -> PathBuf { directory.join(format!("{number:03}.{extension}")) };
    files::write(&path("eml"), &parcel.message.concat())?;
    let named: Vec<_> =
        parcel.recipients.iter().filter_map(|index| recipients.get(*index)).collect();
    let delivered: Delivered = parcel.delivered;
    let copy = json!({ "recipients": named, "delivered": delivered, "report": report });
    files::write(&path("json"), format!("{copy:#}\n").as_bytes())
}

/// What the relay answers, in the report too.
fn refuse(reply: &Reply, mut report: Report, destination: Destination<'_>) -> Failure {
    report.reply =
        Some(ReplyReport { code: reply.code, enhanced: reply.enhanced_text(), text: reply.text() });
    match write_report(&report, destination) {
        Ok(()) => Failure::Refused(reply.clone()),
        Err(failure) => failure,
    }
}

fn write_report(report: &Report, destination: Destination<'_>) -> Result<(), Failure> {
    let Some(path) = destination.report else { return Ok(()) };
    let json = serde_json::to_string_pretty(report)
        .map_err(|error| Failure::Unavailable(format!("internal error: {error}")))?;
    files::write(path, format!("{json}\n").as_bytes())
}

/// Standard input with its line ends made CRLF, as a mail server would hand it over; or what the relay answers to such octets.
fn read_message(bytes_max: usize) -> Result<Result<Message, Reply>, Failure> {
    let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(bytes_max.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| Failure::Data(format!("standard input: {error}")))?;
    if u64::try_from(bytes.len()).is_ok_and(|read| read > bytes_max) {
        return Ok(Err(Reply::from(&Refusal::TooLarge)));
    }
    let mut content = Content::new(bytes_max, None);
    let mut decoder = Decoder::for_chunks(Limits::default().line_bytes_max);
    let decoded = decoder.decode(&with_crlf(&bytes), &mut content);
    if let Err(violation) = decoded.and_then(|_| decoder.finish_chunks(&mut content)) {
        return Ok(Err(violation.into()));
    }
    Ok(content.finish().map(Message::new).ok_or_else(|| Reply::from(&Refusal::TooLarge)))
}

/// A lone LF becomes CRLF: files have it.
fn with_crlf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().saturating_add(bytes.len() / 16));
    for &byte in bytes {
        if byte == b'\n' && out.last() != Some(&b'\r') {
            out.push(b'\r');
        }
        out.push(byte);
    }
    out
}

/// 64 random bits in hexadecimal.
fn transaction_id() -> Result<String, Failure> {
    let mut bytes = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Failure::Unavailable("the random number generator failed".to_owned()))?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

/// The trace field (RFC 5321 §4.4) of a message that came over no connection.
fn received_field(hostname: &str, id: &str) -> Result<Vec<u8>, Failure> {
    let now = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    let date = jiff::fmt::rfc2822::to_string(&now)
        .map_err(|error| Failure::Unavailable(format!("the clock: {error}")))?;
    Ok(format!("Received: by {hostname} (sealgate) with local\r\n\tid {id}; {date}\r\n")
        .into_bytes())
}

/// Key rounds of one message: the core asks at most once a layer and direction.
const STEPS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_become_crlf() {
        for (given, expected) in [
            (&b"a\nb\n"[..], &b"a\r\nb\r\n"[..]),
            (b"a\r\nb\n", b"a\r\nb\r\n"),
            (b"a", b"a"),
            (b"", b""),
            (b"\n\n", b"\r\n\r\n"),
            (b"a\r", b"a\r"),
        ] {
            assert_eq!(with_crlf(given), expected);
        }
    }
}
