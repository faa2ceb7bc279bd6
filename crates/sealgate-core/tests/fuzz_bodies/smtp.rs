//! What the SMTP machines are fuzzed with: one function a property, called by the fuzz targets and by the test command.
#![allow(unreachable_pub, reason = "the fuzz targets call these from another crate")]

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use sealgate_core::address::{Address, Domain};
use sealgate_core::envelope::{MailParameters, Recipient};
use sealgate_core::refusal::Reply;
use sealgate_core::smtp::Protocol;
use sealgate_core::smtp::client::{self, Client, Tls, Transaction};
use sealgate_core::smtp::data::{Content, Decoder, Progress, stuff};
use sealgate_core::smtp::server::{self, Limits, Server};

/// A target's name and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// The targets by name, each with what it runs.
pub const TARGETS: &[Target] = &[
    ("smtp_client", smtp_client),
    ("smtp_data", smtp_data),
    ("smtp_session", smtp_session),
    ("smtp_stuffing", smtp_stuffing),
];

/// Commands in any order: the same however the stream is cut, and messages have clean line ends.
pub fn smtp_session(data: &[u8]) {
    for protocol in [Protocol::Smtp, Protocol::Lmtp] {
        let whole = play_server(protocol, &[data]);
        let octets: Vec<&[u8]> = data.chunks(1).collect();
        assert_eq!(whole, play_server(protocol, &octets));
        for message in &whole.messages {
            assert!(is_clean(message), "{message:?}");
        }
    }
}

/// Content after DATA: only CRLF.CRLF ends it (smuggling), by the word of a reader that was written apart.
pub fn smtp_data(data: &[u8]) {
    if data.len() > CONTENT_BYTES_MAX {
        return;
    }
    let prologue: &[u8] =
        b"EHLO x.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n";
    let wanted = read_content(data);
    for size in [1, data.len().max(1)] {
        let mut pieces = vec![prologue];
        pieces.extend(data.chunks(size));
        let seen = play_server(Protocol::Smtp, &pieces);
        match &wanted {
            Read::Message(content) => assert_eq!(seen.messages.first(), Some(content)),
            Read::Violation => assert!(seen.messages.is_empty() && seen.closed, "{seen:?}"),
            Read::More => assert!(seen.messages.is_empty() && !seen.closed, "{seen:?}"),
        }
    }
}

/// Content on its way out and in again is the same, and holds no end of data before its end.
pub fn smtp_stuffing(data: &[u8]) {
    let segments: Vec<Bytes> = data.chunks(11).map(Bytes::copy_from_slice).collect();
    let mut wire = VecDeque::new();
    stuff(&segments, &mut wire);
    let mut wire: Vec<u8> = wire.into_iter().flat_map(Vec::from).collect();
    wire.extend_from_slice(b".\r\n");
    let mut content = Content::new(u64::MAX, None);
    match Decoder::for_data(usize::MAX).decode(&wire, &mut content) {
        Ok(progress) => {
            assert_eq!(progress, Progress::End(wire.len()));
            let back = content.finish().expect("no limit was set");
            assert!(back == data || back == [data, b"\r\n"].concat());
        }
        Err(_) => assert!(!is_clean(data) || !data.ends_with(b"\r\n")),
    }
}

/// Replies of a server, wild ones too: the same however they are cut, and no answer before the dot.
pub fn smtp_client(data: &[u8]) {
    for protocol in [Protocol::Smtp, Protocol::Lmtp] {
        let whole = play_client(protocol, &[data]);
        let bytes: Vec<&[u8]> = data.chunks(1).collect();
        assert_eq!(whole, play_client(protocol, &bytes));
    }
}

/// What a session said and delivered.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    output: Vec<u8>,
    messages: Vec<Bytes>,
    closed: bool,
}

/// Plays pieces to a server that admits everything.
fn play_server(protocol: Protocol, pieces: &[&[u8]]) -> Seen {
    let mut server = Server::new(server::Options {
        protocol,
        hostname: Domain::parse("gate.example").expect("a domain"),
        postmaster_domain: Domain::parse("gate.example").expect("a domain"),
        // What follows STARTTLS is dropped with the buffer, so that cuts would matter.
        starttls: server::StartTls::Absent,
        smtputf8: true,
        dsn: true,
        requiretls: true,
        limits: Limits { line_bytes_max: usize::MAX, ..Limits::default() },
    });
    let mut input = BytesMut::new();
    let mut seen = Seen { output: Vec::new(), messages: Vec::new(), closed: false };
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match server.advance(&mut input) {
                server::Event::NeedInput => break,
                server::Event::Close => {
                    seen.closed = true;
                    break;
                }
                server::Event::Message(message) => {
                    seen.messages.push(message.1);
                    while server.replies_owed() > 0 {
                        server.answer(&Reply::new(250, (2, 0, 0), "ok"));
                    }
                }
                server::Event::Discarded(_) => {}
                server::Event::NeedAnswer => panic!("every question was answered"),
                server::Event::Data
                | server::Event::Mail { .. }
                | server::Event::Recipient(_)
                | server::Event::StartTls => server.accept(),
            }
        }
    }
    seen.output = server.output().to_vec();
    seen
}

/// Plays pieces to a client that sends one message to two recipients, over and over.
fn play_client(protocol: Protocol, pieces: &[&[u8]]) -> (Vec<client::Event>, Vec<u8>) {
    let options = client::Options { protocol, hostname: "gate.example".to_owned(), tls: Tls::Off };
    let mut client = Client::new(options);
    let recipients = ["b@x.example", "c@y.example"]
        .map(|text| Recipient::new(Address::parse(text).expect("an address")));
    let parameters = MailParameters::default();
    let mut input = BytesMut::new();
    let (mut events, mut output) = (Vec::new(), Vec::new());
    let mut released = false;
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let event = client.advance(&mut input);
            match &event {
                client::Event::NeedInput => break,
                client::Event::Idle => {
                    released = false;
                    let transaction = Transaction {
                        reverse_path: None,
                        parameters: &parameters,
                        recipients: recipients.iter().collect(),
                        size_bytes: 4,
                        eight_bit: false,
                        utf8_header: false,
                    };
                    let _ = client.start(&transaction);
                }
                client::Event::Admitted(replies) => {
                    assert_eq!(replies.len(), recipients.len());
                    client.send_content(&[Bytes::from_static(b".x\r\n")]);
                    client.release();
                    released = true;
                }
                client::Event::Answer { recipient, .. } => {
                    assert!(released, "an answer before the dot");
                    assert!(*recipient < recipients.len());
                }
                _ => {}
            }
            output.extend(client.output().drain(..).flat_map(Vec::from));
            events.push(event);
        }
        output.extend(client.output().drain(..).flat_map(Vec::from));
    }
    (events, output)
}

/// What content is.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Message(Bytes),
    More,
    Violation,
}

/// RFC 5321 §4.1.1.4 read line by line, octet by octet.
fn read_content(data: &[u8]) -> Read {
    let mut message = Vec::new();
    let mut rest = data;
    loop {
        let bad = rest.iter().enumerate().position(|(at, &b)| match b {
            0 => true,
            b'\r' => rest.get(at + 1).is_some_and(|&next| next != b'\n'),
            b'\n' => at == 0 || rest[at - 1] != b'\r',
            _ => false,
        });
        let end = rest.windows(2).position(|pair| pair == b"\r\n");
        match (bad, end) {
            (Some(bad), Some(end)) if bad < end => return Read::Violation,
            (Some(_), None) => return Read::Violation,
            (None, None) => return Read::More,
            (_, Some(end)) => {
                let (line, after) = rest.split_at(end + 2);
                if line == b".\r\n" {
                    return Read::Message(Bytes::from(message));
                }
                message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
                rest = after;
            }
        }
    }
}

/// Only CRLF ends lines, and there is no NUL.
fn is_clean(content: &[u8]) -> bool {
    !content.contains(&0)
        && content.iter().enumerate().all(|(at, &b)| match b {
            b'\r' => content.get(at + 1) == Some(&b'\n'),
            b'\n' => at > 0 && content[at - 1] == b'\r',
            _ => true,
        })
}

/// Below every limit on size.
const CONTENT_BYTES_MAX: usize = 60_000;
