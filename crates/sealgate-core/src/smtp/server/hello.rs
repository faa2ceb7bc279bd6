//! Hello and STARTTLS: what is offered, and to whom (RFC 5321 §4.1.1.1, RFC 3207).

use super::{Event, Question, Server, StartTls};
use crate::refusal::Reply;
use crate::smtp::Protocol;
use crate::smtp::command::Greeting;

impl Server {
    /// After the handshake: the client must say hello again (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        if matches!(self.question, Some(Question::Tls)) {
            self.question = None;
            self.tls = true;
            self.hello = None;
            self.reset();
        }
    }

    pub(super) fn hello_command(&mut self, greeting: Greeting, name: String) -> Option<Event> {
        let protocol = if greeting == Greeting::Lhlo { Protocol::Lmtp } else { Protocol::Smtp };
        if protocol != self.options.protocol {
            let right = if protocol == Protocol::Lmtp { "SMTP" } else { "LMTP: say LHLO" };
            let text = format!("this is {right}");
            return self.error(&Reply::new(500, (5, 5, 1), text));
        }
        let discarded = self.discard(None);
        self.reset();
        self.hello = Some((greeting, name));
        let mut lines = vec![self.options.hostname.to_string()];
        if greeting != Greeting::Helo {
            let limits = &self.options.limits;
            lines.push("PIPELINING".to_owned());
            lines.push(format!("SIZE {}", limits.message_bytes_max));
            lines.push("8BITMIME".to_owned());
            lines.push("ENHANCEDSTATUSCODES".to_owned());
            lines.push("CHUNKING".to_owned());
            let optional = [
                (self.options.smtputf8, "SMTPUTF8"),
                (self.options.dsn, "DSN"),
                (self.options.requiretls && self.tls, "REQUIRETLS"),
                (self.options.starttls != StartTls::Absent && !self.tls, "STARTTLS"),
            ];
            let offered = optional.iter().filter(|(on, _)| *on);
            lines.extend(offered.map(|(_, keyword)| (*keyword).to_owned()));
        }
        self.reply_plain(250, lines);
        discarded.map(Event::discarded)
    }

    pub(super) fn starttls(&mut self) -> Option<Event> {
        if self.tls {
            return self.out_of_sequence("TLS is on already");
        }
        if self.options.starttls == StartTls::Absent {
            return self.error(&Reply::new(502, (5, 5, 1), "not offered"));
        }
        if self.envelope.is_some() {
            return self.out_of_sequence("not inside a transaction");
        }
        self.say(220, (2, 0, 0), "ready to start TLS");
        self.question = Some(Question::Tls);
        Some(Event::StartTls)
    }
}
