//! Mail to more unnamed recipients than there is memory for copies: those who get none for now are told apart, and every
//! attempt gets further (REQUIREMENTS K10).
#![allow(clippy::indexing_slicing, clippy::unwrap_used, missing_docs, reason = "test code")]

use sealgate_testkit::gate::Gate;
use sealgate_testkit::session::{send_lmtp, send_smtp};
use sealgate_testkit::sink::Sink;

const ALICE: &str = "alice@nec.example";
/// A budget for one such mail and, in its other half, three copies besides the first.
const MEMORY_BYTES: i64 = 1_200_000;
const MAIL_BYTES: usize = 100_000;

fn mail() -> Vec<u8> {
    let head = "From: alice@nec.example\r\nTo: undisclosed-recipients:;\r\nSubject: x\r\n\r\n";
    [head.as_bytes(), &b"words\r\n".repeat(MAIL_BYTES / 7)].concat()
}

fn addresses() -> Vec<String> {
    (0..10).map(|number| format!("r{number}@abc.example")).collect()
}

fn gate(outside: &Sink) -> Gate {
    let abc = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["abc.example"]);
    let to = addresses();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    for address in &to {
        abc.generate_key(address, "p256");
    }
    let mut gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
    gate.trust(&abc, &to);
    gate.generate_key(ALICE, "p256");
    gate.set(&["hostname"], "gate.nec.example");
    gate.set(&["limits", "memory_bytes_max"], MEMORY_BYTES);
    gate.set(&["limits", "message_bytes_max"], MEMORY_BYTES / 3);
    gate.set(&["outside", "next_hop"], format!("smtp://{}", outside.address));
    gate.start();
    gate
}

/// How often each of them got it.
fn counts(sink: &Sink, to: &[&str]) -> Vec<usize> {
    let received = sink.received();
    let lines: Vec<&String> = received.iter().flat_map(|message| &message.recipients).collect();
    to.iter().map(|to| lines.iter().filter(|line| line.contains(to)).count()).collect()
}

#[test]
fn each_attempt_serves_some_more() {
    let outside = Sink::smtp();
    let gate = gate(&outside);
    let to = addresses();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let mut served = Vec::new();
    for _ in 0..3 {
        let reply = send_smtp(gate.ready().inside_smtp.unwrap(), ALICE, &to, &mail());
        served.push((reply.status(), counts(&outside, &to).iter().sum::<usize>()));
    }
    let expected =
        [("452 4.5.3", 4), ("452 4.5.3", 8), ("250 2.0.0", 10)].map(|(a, b)| (a.to_owned(), b));
    assert_eq!(served, expected, "{}", gate.log());
    assert_eq!(counts(&outside, &to), [1; 10]);
}

#[test]
fn over_lmtp_those_beyond_are_told_apart() {
    let outside = Sink::smtp();
    let gate = gate(&outside);
    let to = addresses();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let replies = send_lmtp(gate.ready().inside_lmtp.unwrap(), ALICE, &to, &mail());
    let codes: Vec<u16> = replies.iter().map(|reply| reply.code).collect();
    assert_eq!(codes, [250, 250, 250, 250, 452, 452, 452, 452, 452, 452], "{replies:?}");
    assert_eq!(counts(&outside, &to), [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]);
    let replies = send_lmtp(gate.ready().inside_lmtp.unwrap(), ALICE, &to[4..8], &mail());
    assert!(replies.iter().all(|reply| reply.code == 250), "{replies:?}");
}
