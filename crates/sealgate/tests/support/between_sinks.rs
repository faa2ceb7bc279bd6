//! A relay without cryptography between two scripted servers, and who got what of whom.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use sealgate_testkit::gate::Gate;
use sealgate_testkit::process::await_that;
use sealgate_testkit::session::{Reply, send_smtp};
use sealgate_testkit::sink::{Protocol, Sink, Stage};

pub(crate) const ALICE: &str = "alice@nec.example";
/// Nobody is named in it, so that everybody gets a copy, and a delivery, of his own.
pub(crate) const MAIL: &[u8] =
    b"From: alice@nec.example\r\nTo: undisclosed-recipients:;\r\nSubject: plan\r\n\r\nwords\r\n";

/// A relay without cryptography, whose mail server and whose Internet are sinks.
pub(crate) fn gate(inside: &Sink, outside: &Sink, edit: impl FnOnce(&Gate)) -> Gate {
    let mut gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
    gate.set(&["hostname"], "gate.nec.example");
    gate.set(&["policy", "sign"], "never");
    gate.set(&["policy", "encrypt"], "never");
    gate.set(&["inside", "mail_server"], format!("smtp://{}", inside.address));
    gate.set(&["outside", "next_hop"], format!("smtp://{}", outside.address));
    edit(&gate);
    gate.start();
    gate
}

/// What a server answers at RCPT and at the dot to whom, in the words of a test: `("busy@", "450 4.2.1 busy")`.
#[derive(Clone, Default)]
pub(crate) struct Script(Arc<Mutex<HashMap<&'static str, &'static str>>>);

impl Script {
    pub(crate) fn set(&self, who: &'static str, answer: &'static str) {
        self.0.lock().unwrap().insert(who, answer);
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    pub(crate) fn answer(&self, line: &str) -> Option<String> {
        let script = self.0.lock().unwrap();
        let found = script.iter().find(|(who, _)| line.contains(*who));
        found.map(|(_, answer)| format!("{answer}\r\n"))
    }
}

pub(crate) fn refusing_at_rcpt(script: &Script) -> Sink {
    let script = script.clone();
    Sink::scripted(Protocol::Smtp, move |stage| match stage {
        Stage::Rcpt(line) => script.answer(line),
        _ => None,
    })
}

pub(crate) fn refusing_at_dot(protocol: Protocol, script: &Script) -> Sink {
    let script = script.clone();
    Sink::scripted(protocol, move |stage| match stage {
        Stage::Dot(line) => script.answer(line),
        _ => None,
    })
}

pub(crate) fn refusing(at_dot: bool, script: &Script) -> Sink {
    match at_dot {
        true => refusing_at_dot(Protocol::Smtp, script),
        false => refusing_at_rcpt(script),
    }
}

pub(crate) fn smtp(gate: &Gate, to: &[&str]) -> Reply {
    send_smtp(gate.ready().inside_smtp.unwrap(), ALICE, to, MAIL)
}

/// How often each of these has got the message.
pub(crate) fn counts<const N: usize>(sink: &Sink, to: [&str; N]) -> [usize; N] {
    let received = sink.received();
    let lines: Vec<&String> = received.iter().flat_map(|message| &message.recipients).collect();
    to.map(|to| lines.iter().filter(|line| line.contains(&format!("<{to}>"))).count())
}

pub(crate) fn log_of(gate: &Gate, reply: &Reply) -> serde_json::Value {
    let id = reply.text().rsplit("(id ").next().unwrap().trim_end_matches(')').to_owned();
    let of = |line: &serde_json::Value| line["id"] == id.as_str() && line["event"] == "transaction";
    await_that("the transaction in the log", || gate.log_lines().iter().any(of));
    gate.log_lines().into_iter().find(of).expect("a transaction")
}

pub(crate) const OK: &str = "ok@a.example";
pub(crate) const GONE: &str = "gone@b.example";
pub(crate) const BUSY: &str = "busy@c.example";
