//! What servers say before the content, and what their words are taken for.

use std::borrow::Cow;

use bytes::Bytes;
use sealgate_core::address::Address;
use sealgate_core::envelope::{Envelope, MailParameters, Recipient};
use sealgate_core::report::Delivered;
use sealgate_core::step::Parcel;
use sealgate_testkit::sink::{Protocol, Sink, Stage};

use super::super::super::connect::tests::{answering, downstream, hop};
use super::super::super::introduction::Introduction;
use super::super::super::transport::{Demand, Transport};
use super::*;

/// What each of two recipients at a hop is refused with, in words; empty for one who is admitted.
async fn told(downstream: &Downstream, hop: &Hop, patience: Duration) -> [String; 2] {
    let to = |text| Recipient::new(Address::parse(text).unwrap());
    let envelope = Envelope {
        reverse_path: None,
        recipients: vec![to("a@abc.example"), to("b@abc.example")],
        parameters: MailParameters::default(),
    };
    let parcel = Parcel {
        recipients: vec![0, 1],
        message: vec![Bytes::from_static(b"Subject: x\r\n\r\nx\r\n")],
        delivered: Delivered::Sealed,
        eight_bit: false,
    };
    let consignment = Consignment {
        envelope: &envelope,
        parameters: Cow::Borrowed(&envelope.parameters),
        parcel: &parcel,
        recipients: vec![0, 1],
        hop: hop.clone(),
        transport: &Transport::default(),
        judges_hop: true,
        opened: false,
        size_bytes_min: 0,
    };
    let deadline = Instant::now() + patience;
    let place = downstream.hops.reserve(hop, 1, deadline).await.unwrap();
    let admission = downstream.admit(&consignment, place, deadline).await;
    let mut told = [const { String::new() }; 2];
    for (index, outcome) in admission.refused {
        told[index] = outcome.unwrap_err().to_string();
    }
    told
}

async fn told_both(downstream: &Downstream, hop: &Hop) -> String {
    let [first, second] = told(downstream, hop, Duration::from_secs(60)).await;
    assert_eq!(first, second);
    first
}

const INSISTS: &str = "530 5.7.0 Must issue a STARTTLS command first";

/// The next attempt may find its TLS in order; what it says of a mailbox is true in plain as well.
#[tokio::test(flavor = "multi_thread")]
async fn who_insists_on_tls_that_failed_is_tried_again() {
    const BROKEN: &str = "454 4.7.0 not available";
    for (starttls, to, says, status) in [
        (BROKEN, "MAIL", INSISTS, "451 4.7.0"),
        ("220 go on\r\nno TLS at all", "MAIL", INSISTS, "451 4.7.0"),
        (BROKEN, "MAIL", "503 STARTTLS first", "451 4.0.0"),
        (BROKEN, "MAIL", "550 use TLS", "451 4.0.0"),
        (BROKEN, "MAIL", "550 5.1.1 nobody here", "550 5.1.1"),
        (BROKEN, "MAIL", "552 5.3.4 too large", "552 5.3.4"),
        ("", "MAIL", INSISTS, "554 5.7.0"),
        (BROKEN, "RCPT", INSISTS, "451 4.7.0"),
        (BROKEN, "RCPT", "503 STARTTLS first", "451 4.0.0"),
        (BROKEN, "RCPT", "538 not in plain", "451 4.0.0"),
        (BROKEN, "RCPT", "550 5.7.10 not in plain", "451 4.7.10"),
        // It takes mail in plain, and this is about somebody.
        (BROKEN, "RCPT", "550 User unknown", "550 5.0.0"),
        (BROKEN, "RCPT", "550 5.1.1 nobody here", "550 5.1.1"),
        ("", "RCPT", INSISTS, "554 5.7.0"),
    ] {
        let address = answering(move |line| {
            let offer = if starttls.is_empty() { "8BITMIME" } else { "STARTTLS" };
            match line.split_once(' ').map_or(line, |(verb, _)| verb) {
                "EHLO" => format!("250-mx.abc.example\r\n250 {offer}\r\n"),
                "STARTTLS" => format!("{starttls}\r\n"),
                verb if verb == to => format!("{says}\r\n"),
                _ => "250 yes\r\n".to_owned(),
            }
        });
        let refusal = told_both(&downstream(1), &hop(address, Demand::default())).await;
        assert!(refusal.starts_with(status), "{starttls:?} {to} {says}: {refusal}");
    }
}

/// RFC 5321 §4.5.3.1.10.
#[tokio::test(flavor = "multi_thread")]
async fn whom_a_server_has_no_more_room_for_is_tried_again() {
    for (says, status) in [
        ("552 too many recipients", "452 4.0.0"),
        ("552 5.5.3 too many recipients", "452 4.5.3"),
        ("552 5.2.2 over quota", "552 5.2.2"),
        ("552 5.3.4 too large", "552 5.3.4"),
    ] {
        let sink = Sink::scripted(Protocol::Smtp, move |stage| {
            let is_surplus = matches!(stage, Stage::Rcpt(line) if line.contains("b@"));
            is_surplus.then(|| format!("{says}\r\n"))
        });
        let hop = hop(sink.address, Demand::default());
        let [first, second] = told(&downstream(1), &hop, Duration::from_secs(60)).await;
        assert!(first.is_empty() && second.starts_with(status), "{says}: {first} {second}");
    }
}

/// A server that holds off one client says nothing of others by that, however late it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_who_is_kept_waiting_shuts_nobody_else_out() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent = hop(listener.local_addr().unwrap(), Demand::default());
    let (client, server) = ("192.0.2.1:4025".parse().unwrap(), "192.0.2.25:25".parse().unwrap());
    let introduction = Some(Introduction::Proxy { client, server });
    let introducing = Hop { introduction, ..silent.clone() };
    for (hop, is_left_alone) in [(introducing, false), (silent, true)] {
        let downstream = downstream(1);
        for _ in 0..3 {
            let [refusal, _] = told(&downstream, &hop, Duration::from_secs(1)).await;
            assert!(refusal.starts_with("451 4.4."), "{refusal}");
        }
        assert_eq!(downstream.hops.attempt(&hop).is_err(), is_left_alone);
    }
}
