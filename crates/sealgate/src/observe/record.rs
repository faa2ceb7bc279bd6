//! The one line a transaction: the facts of the report, who and whence, and the reply.

use std::net::IpAddr;
use std::time::Duration;

use sealgate_core::address::Address;
use sealgate_core::envelope::Recipient;
use sealgate_core::refusal::Reply;
use sealgate_core::report::{ReplyReport, Report};
use serde::Serialize;

use crate::config::LogFormat;
use crate::relay::settle::{Answered, Repair};
use crate::relay::transport::{Passage, Transport};

/// A transaction's line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    time: String,
    event: &'static str,
    #[serde(flatten)]
    report: Report,
    entrance: &'static str,
    client: IpAddr,
    from: String,
    to: Vec<String>,
    size_bytes: usize,
    seconds: f64,
    /// How each copy went, in the order in which they were admitted.
    passages: Vec<Passage>,
    /// Code and status of what the mail server said when it refused what was opened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    opened_refused: Vec<String>,
    /// Each recipient's answer, where they differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<Answered>,
    /// Some recipients have it and some do not.
    partial: bool,
    /// What put that right.
    repair: Option<Repair>,
    /// The client was gone when it was answered.
    reply_lost: bool,
    /// The client was gone, or too slow, before anything was delivered.
    aborted: bool,
}

impl Record {
    /// What every line has.
    pub(crate) fn new(
        mut report: Report,
        reply: &Reply,
        client: IpAddr,
        entrance: &'static str,
    ) -> Self {
        report.reply = Some(ReplyReport {
            code: reply.code,
            enhanced: reply.enhanced_text(),
            text: reply.text(),
        });
        Self {
            time: jiff::Timestamp::now().to_string(),
            event: "transaction",
            report,
            entrance,
            client: client.to_canonical(),
            from: String::new(),
            to: Vec::new(),
            size_bytes: 0,
            seconds: 0.0,
            passages: Vec::new(),
            opened_refused: Vec::new(),
            recipients: Vec::new(),
            partial: false,
            repair: None,
            reply_lost: false,
            aborted: false,
        }
    }

    /// The sender.
    pub(crate) fn from(mut self, from: Option<&Address>) -> Self {
        self.from = from.map(ToString::to_string).unwrap_or_default();
        self
    }

    /// The recipients.
    pub(crate) fn to(mut self, recipients: &[Recipient]) -> Self {
        self.to = recipients.iter().map(|recipient| recipient.address.to_string()).collect();
        self
    }

    /// The message's size.
    pub(crate) fn size(mut self, size_bytes: usize) -> Self {
        self.size_bytes = size_bytes;
        self
    }

    /// From DATA to the reply.
    pub(crate) fn elapsed(mut self, elapsed: Duration) -> Self {
        self.seconds = elapsed.as_secs_f64();
        self
    }

    /// How its copies went.
    pub(crate) fn transport(mut self, transport: Option<&Transport>) -> Self {
        self.passages = transport.map(Transport::passages).unwrap_or_default();
        self.opened_refused = transport.map(Transport::opened_refused).unwrap_or_default();
        self
    }

    /// Each recipient's answer, where they differ.
    pub(crate) fn recipients(mut self, recipients: Vec<Answered>) -> Self {
        self.recipients = recipients;
        self
    }

    /// Some recipients have it and some do not, and what put that right.
    pub(crate) fn partial(mut self, partial: bool, repair: Option<Repair>) -> Self {
        self.partial = partial;
        self.repair = repair;
        self
    }

    /// The client was gone when it was answered.
    pub(crate) fn reply_lost(mut self, lost: bool) -> Self {
        self.reply_lost = lost;
        self
    }

    /// The client was gone, or too slow, before anything was delivered.
    pub(crate) fn aborted(mut self) -> Self {
        self.aborted = true;
        self
    }

    /// Writes the line and counts.
    pub(crate) fn write(self) {
        failpoint!(blocking "record.write");
        self.count();
        if self.partial && matches!(self.repair, None | Some(Repair::Unwanted)) {
            tracing::error!(
                id = self.report.id,
                "partial: some recipients have this message and some do not"
            );
        }
        let mut line = match super::format() {
            LogFormat::Json => serde_json::to_string(&self).unwrap_or_default(),
            LogFormat::Text => self.text(),
        };
        #[cfg(test)]
        if crate::relay::schedules::are_running() {
            return crate::relay::schedules::note(|| line);
        }
        line.push('\n');
        super::write_line(line.as_bytes());
    }

    fn count(&self) {
        let class = match self.report.reply.as_ref().map_or(0, |reply| reply.code) {
            200..=299 => "accepted",
            400..=499 => "deferred",
            _ => "refused",
        };
        let direction = self.report.direction.as_str();
        let verdict = self.report.verdict.as_str();
        metrics::counter!(
            "sealgate_transactions_total",
            "direction" => direction, "outcome" => class, "verdict" => verdict
        )
        .increment(1);
        // Who is refused before there is content takes no time.
        if self.seconds > 0.0 {
            metrics::histogram!("sealgate_transaction_seconds", "direction" => direction)
                .record(self.seconds);
        }
        if self.partial {
            metrics::counter!("sealgate_partial_total").increment(1);
        }
    }

    fn text(&self) -> String {
        let reply = self.report.reply.as_ref();
        let reply = reply.map(|reply| format!("{} {} {}", reply.code, reply.enhanced, reply.text));
        let to: Vec<String> = self.to.iter().map(|to| path(to)).collect();
        let to = if to.is_empty() { path("") } else { to.join(",") };
        let reason = self.report.reason.map_or("-", |reason| reason.as_str());
        let layers: Vec<String> = self.report.layers.iter().map(ToString::to_string).collect();
        let passages: Vec<String> = self.passages.iter().map(ToString::to_string).collect();
        let recipients: Vec<String> = self.recipients.iter().map(answered).collect();
        let recipients = match recipients.is_empty() {
            true => String::new(),
            false => format!("recipients={} ", recipients.join(",")),
        };
        format!(
            "{} {} id={} direction={} client={} from={} to={} size={} seconds={:.3} \
             delivered={} verdict={} reason={} layers={} to-hosts={} opened-refused={} {}partial={} reply-lost={} aborted={} reply={}",
            self.time,
            self.entrance,
            self.report.id,
            self.report.direction.as_str(),
            self.client,
            path(&self.from),
            to,
            self.size_bytes,
            self.seconds,
            self.report.delivered.as_str(),
            self.report.verdict.as_str(),
            reason,
            layers.join(","),
            passages.join(","),
            self.opened_refused.join(","),
            recipients,
            self.partial,
            self.reply_lost,
            self.aborted,
            quoted(&reply.unwrap_or_default()),
        )
    }
}

/// An address in angle brackets. One that could be taken for another field of a text line, which a quoted local part may be
/// made for, is a quoted value.
fn path(address: &str) -> String {
    let forges = |c: char| c.is_whitespace() || c.is_control() || "\"\\=,<>".contains(c);
    let path = format!("<{address}>");
    if address.contains(forges) { quoted(&path) } else { path }
}

/// An address, code, status and host; `-` for what there is not.
fn answered(one: &Answered) -> String {
    let code = one.code.map_or_else(|| "-".to_owned(), |code| code.to_string());
    let host = one.host.as_deref().unwrap_or("-");
    format!("{}/{code}/{}/{host}", path(&one.to), one.enhanced)
}

/// A value within quotes, which nothing in it ends.
fn quoted(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len().saturating_add(2));
    quoted.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' ' => quoted.push(c),
            c if c.is_control() || c.is_whitespace() => quoted.extend(c.escape_default()),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use sealgate_core::report::{Direction, Format, Layer, SignatureStatus};

    use super::*;

    #[test]
    fn the_line_shows_the_report_and_the_envelope() {
        let to = Recipient::new(Address::parse("bob@abc.example").unwrap());
        let reply = Reply::new(550, (5, 7, 7), "no");
        let mut report = Report::new(Direction::Inbound, "ID1");
        let format = Format::Smime;
        let (digest, signature) = ("sha-256".to_owned(), "ed25519".to_owned());
        let status = SignatureStatus::Valid;
        report.layers.push(Layer::Signed { format, status, signer: None, digest, signature });
        let (content, key) = ("aes-256-gcm".to_owned(), "ecdh-p256".to_owned());
        let recipient = "bob@abc.example".to_owned();
        report.layers.push(Layer::Encrypted { format, content, key, recipient });
        let record =
            Record::new(report, &reply, "::ffff:192.0.2.1".parse().unwrap(), "outside-smtp")
                .to(&[to])
                .size(7);
        let line: serde_json::Value =
            serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(line["event"], "transaction");
        assert_eq!(line["id"], "ID1");
        assert_eq!(line["direction"], "inbound");
        assert_eq!(line["reply"]["code"], 550);
        assert_eq!(line["reply"]["enhanced"], "5.7.7");
        assert_eq!(line["client"], "192.0.2.1");
        assert_eq!(line["to"][0], "bob@abc.example");
        assert_eq!(line.get("recipients"), None, "the reply says it all");
        let text = record.text();
        for part in [
            "id=ID1",
            "direction=inbound",
            "to=<bob@abc.example>",
            "delivered=nothing",
            "layers=signed:valid:sha-256:ed25519,encrypted:aes-256-gcm:ecdh-p256",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains(" recipients="), "{text}");
    }

    #[test]
    fn the_line_shows_who_has_it_and_who_has_not() {
        let answered = |to: &str, code, enhanced: &str, host: Option<&str>| Answered {
            to: to.to_owned(),
            code,
            enhanced: enhanced.to_owned(),
            host: host.map(str::to_owned),
        };
        let reply = Reply::new(450, (4, 2, 1), "no");
        let client = "192.0.2.1".parse().unwrap();
        let record = Record::new(Report::new(Direction::Outbound, "ID1"), &reply, client, "x")
            .recipients(vec![
                answered("bob@abc.example", Some(250), "2.0.0", Some("mx.abc.example")),
                answered("carol@d.example", None, "", None),
            ]);
        let line: serde_json::Value =
            serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        let expected = serde_json::json!([
            { "to": "bob@abc.example", "code": 250, "enhanced": "2.0.0", "host": "mx.abc.example" },
            { "to": "carol@d.example" },
        ]);
        assert_eq!(line["recipients"], expected);
        let shown =
            " recipients=<bob@abc.example>/250/2.0.0/mx.abc.example,<carol@d.example>/-//- ";
        assert!(record.text().contains(shown), "{}", record.text());
    }

    #[test]
    fn nothing_in_an_address_or_a_reply_makes_a_field_of_a_text_line() {
        let recipient = |text: &str| Recipient::new(Address::parse(text).unwrap());
        let forger = Address::parse("\"x> verdict=valid \\\" y\"@abc.example").unwrap();
        let reply = Reply::new(550, (5, 1, 1), "no \"such\" user\r\nid=ID2 \\\u{2028}");
        let record = Record::new(
            Report::new(Direction::Inbound, "ID1"),
            &reply,
            "192.0.2.1".parse().unwrap(),
            "outside-smtp",
        )
        .from(Some(&forger))
        .to(&[
            recipient("a@abc.example"),
            recipient("\"b,c\"@abc.example"),
            recipient("b=c@abc.example"),
        ]);
        let text = record.text();
        for field in [
            r#" from="<\"x> verdict=valid \\\" y\"@abc.example>" "#,
            r#" to=<a@abc.example>,"<\"b,c\"@abc.example>","<b=c@abc.example>" "#,
            r#" reply="550 5.1.1 no \"such\" user\r\nid=ID2 \\\u{2028}""#,
        ] {
            assert!(text.contains(field), "{field}\n{text}");
        }
        let text = record.from(None).to(&[]).text();
        assert!(text.contains(" from=<> to=<> "), "{text}");
    }
}
