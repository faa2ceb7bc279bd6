//! Delivery status notifications (RFC 3464, 3461 §6, 6522): of recipients who were refused for good after others had got the
//! message, and of those who have it through a server that confirms no delivery.
//!
//! In: the envelope, the replies and the message as its sender handed it over. Out: a message for the sender in pieces, to be
//! sent with the null reverse-path; nothing where nobody wants to hear. Time and names come from the caller.
//!
//! It goes back to where the message came from and holds nothing that did not come from there, besides the replies.

use bytes::Bytes;

use crate::address::Address;
use crate::cms;
use crate::envelope::{Envelope, Recipient, Ret};
use crate::keys::KeyError;
use crate::message::Message;
use crate::mime::write::Boundary;
use crate::refusal::Reply;

/// What a notification is about.
#[derive(Clone, Debug)]
pub struct Notification<'a> {
    /// The transaction's id.
    pub id: &'a str,
    /// Our name (RFC 3464 §2.2.2).
    pub hostname: &'a str,
    /// The time, as header field Date has it.
    pub date: &'a str,
    /// The message's envelope.
    pub envelope: &'a Envelope,
    /// What became of all recipients below.
    pub action: Action,
    /// Those whom it is about.
    pub recipients: &'a [PerRecipient<'a>],
    /// The message as received.
    pub message: &'a Message,
}

/// What is reported (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Refused for good, while others have the message.
    Failed,
    /// Taken by a server without DSN, from which nothing more will be heard (RFC 3461 §5.2.2).
    Relayed,
}

/// One recipient whom it is about.
#[derive(Clone, Debug)]
pub struct PerRecipient<'a> {
    /// Who.
    pub recipient: &'a Recipient,
    /// The reply: a refusal for good, or a 2xx.
    pub reply: Reply,
    /// The server that said so, where one did.
    pub remote: Option<&'a str>,
}

/// A notification, to be handed over from `<>` to the message's sender.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The message.
    pub message: Vec<Bytes>,
    /// Whether it holds octets above 127.
    pub eight_bit: bool,
}

impl Action {
    /// Whether it is to be reported of a recipient (RFC 3461 §4.1): a failure unless NOTIFY says otherwise, the rest only where
    /// NOTIFY asks for it.
    pub fn is_wanted(self, recipient: &Recipient) -> bool {
        let Some(notify) = &recipient.notify else { return self == Self::Failed };
        let word = match self {
            Self::Failed => "FAILURE",
            Self::Relayed => "SUCCESS",
        };
        notify.split(',').any(|asked| asked.trim().eq_ignore_ascii_case(word))
    }

    /// Its word in the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Relayed => "relayed",
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Self::Failed => "Not delivered to all recipients",
            Self::Relayed => "Handed to mail servers that confirm no delivery",
        }
    }

    /// For people.
    fn explanation(self) -> &'static str {
        match self {
            Self::Failed => {
                "Your message was refused for those named below. Its other recipients have got\r\n\
                 it. It will not be sent again unless you do so.\r\n"
            }
            Self::Relayed => {
                "Your message was taken by the mail servers of those named below. These servers\r\n\
                 send no confirmations: you will not hear when it arrives.\r\n"
            }
        }
    }

    /// The class of its status codes (RFC 3463 §3.1).
    fn class(self) -> u8 {
        match self {
            Self::Failed => 5,
            Self::Relayed => 2,
        }
    }
}

impl Notification<'_> {
    /// Writes the notification; `None` for mail from `<>` (RFC 3461 §6) and where of no recipient it is to be reported.
    ///
    /// # Errors
    /// [`KeyError::Failed`] without randomness for the boundary.
    pub fn write(&self) -> Result<Option<Notice>, KeyError> {
        let about: Vec<&PerRecipient<'_>> =
            self.recipients.iter().filter(|one| self.action.is_wanted(one.recipient)).collect();
        let Some(sender) = &self.envelope.reverse_path else { return Ok(None) };
        if about.is_empty() {
            return Ok(None);
        }
        // RET is about failures (RFC 3461 §4.3). What was to go over verified ways only is not sent back over others (RFC 8689 §5).
        let parameters = &self.envelope.parameters;
        let asked = self.action == Action::Failed && parameters.ret == Some(Ret::Full);
        let whole = asked && !parameters.requiretls;
        let (kind, returned) = if whole {
            ("message/rfc822", self.message.bytes().clone())
        } else {
            ("text/rfc822-headers", self.message.header_section())
        };
        let boundary = Boundary::new(cms::random_bytes()?, std::slice::from_ref(&returned));
        let boundary = boundary.as_str();
        let mut head = self.header(sender, boundary);
        head.push_str(&format!("--{boundary}\r\n{}", self.explanation(&about)));
        head.push_str(&format!("\r\n--{boundary}\r\n{}", self.status(&about)));
        let encoding = if returned.is_ascii() { "7bit" } else { "8bit" };
        head.push_str(&format!(
            "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        ));
        let eight_bit = !returned.is_ascii() || !head.is_ascii();
        let tail = format!("\r\n--{boundary}--\r\n");
        let message = vec![Bytes::from(head), returned, Bytes::from(tail)];
        Ok(Some(Notice { message, eight_bit }))
    }

    fn header(&self, sender: &Address, boundary: &str) -> String {
        let Self { id, hostname, date, action, .. } = self;
        let (subject, word) = (action.subject(), action.word());
        format!(
            "From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\n\
             To: <{sender}>\r\n\
             Subject: {subject}\r\n\
             Date: {date}\r\n\
             Message-ID: <{id}.{word}@{hostname}>\r\n\
             Auto-Submitted: auto-replied\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\
             \tboundary=\"{boundary}\"\r\n\r\n"
        )
    }

    /// For people.
    fn explanation(&self, about: &[&PerRecipient<'_>]) -> String {
        let (id, hostname, happened) = (self.id, self.hostname, self.action.explanation());
        let mut text = format!(
            "Content-Type: text/plain; charset=us-ascii\r\n\r\n\
             This is the mail gateway at {hostname} (transaction {id}).\r\n\r\n\
             {happened}"
        );
        for one in about {
            let address = escaped(&one.recipient.address.to_string());
            let said = folded(&printable(&one.reply.to_string()), "\r\n    ");
            text.push_str(&format!("\r\n<{address}>\r\n    {said}\r\n"));
        }
        text
    }

    /// For programs (RFC 3464 §2).
    fn status(&self, about: &[&PerRecipient<'_>]) -> String {
        let mut text = String::from("Content-Type: message/delivery-status\r\n\r\n");
        if let Some(envid) = &self.envelope.parameters.envid {
            text.push_str(&format!("Original-Envelope-Id: {}\r\n", from_xtext(envid)));
        }
        text.push_str(&format!("Reporting-MTA: dns; {}\r\n", self.hostname));
        for one in about {
            text.push_str("\r\n");
            if let Some((kind, address)) =
                one.recipient.orcpt.as_deref().and_then(|orcpt| orcpt.split_once(';'))
            {
                let (kind, address) = (printable(kind), from_xtext(address));
                text.push_str(&format!("Original-Recipient: {kind};{address}\r\n"));
            }
            let address = &one.recipient.address;
            // RFC 6533 §3.
            let kind = if address.needs_smtputf8() { "utf-8" } else { "rfc822" };
            let (action, class) = (self.action.word(), self.action.class());
            let status = match one.reply.enhanced {
                Some((said, subject, detail)) if said == class => {
                    format!("{class}.{subject}.{detail}")
                }
                _ => format!("{class}.0.0"),
            };
            text.push_str(&format!(
                "Final-Recipient: {kind};{}\r\nAction: {action}\r\nStatus: {status}\r\n",
                escaped(&address.to_string())
            ));
            if let Some(remote) = one.remote {
                text.push_str(&format!("Remote-MTA: dns; {}\r\n", printable(remote)));
            }
            let said = folded(&printable(&one.reply.to_string()), "\r\n\t");
            text.push_str(&format!("Diagnostic-Code: smtp; {said}\r\n"));
            text.push_str(&format!("Last-Attempt-Date: {}\r\n", self.date));
        }
        text
    }
}

/// What others said, so that it ends no line and stays ASCII, and of bounded length.
fn printable(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().take(TEXT_CHARS_MAX).map(safe).collect()
}

/// An address in ASCII (RFC 6533 §3, utf-8-addr-xtext).
fn escaped(address: &str) -> String {
    let mut out = String::with_capacity(address.len());
    for c in address.chars() {
        if c.is_ascii_graphic() && c != '\\' || c == ' ' {
            out.push(c);
        } else {
            out.push_str(&format!("\\x{{{:02X}}}", u32::from(c)));
        }
    }
    out
}

/// Breaks a long line between words (RFC 5322 §2.2.3), and a word that fits no line anywhere.
fn folded(text: &str, break_with: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut column = 0_usize;
    for c in text.chars() {
        let full = column >= LINE_CHARS && c == ' ' || column >= LINE_CHARS_MAX;
        if full {
            out.push_str(break_with);
            column = 0;
        }
        if !(full && c == ' ') {
            out.push(c);
            column = column.saturating_add(1);
        }
    }
    out
}

/// Undoes xtext (RFC 3461 §4); what is none, or would not print, stays as it is.
fn from_xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('+') {
        out.push_str(before);
        let octet = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match octet {
            Some(octet) if octet.is_ascii_graphic() || octet == b' ' => {
                out.push(char::from(octet));
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                out.push('+');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    printable(&out)
}

/// Of one reply, or one parameter; a reply line has 512 octets (RFC 5321 §4.5.3.1.5), a reply may have several.
const TEXT_CHARS_MAX: usize = 2000;
/// Lines are broken at the first space after this.
const LINE_CHARS: usize = 60;
/// Lines are broken anywhere after this, well below 998 (RFC 5322 §2.1.1).
const LINE_CHARS_MAX: usize = 900;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::envelope::MailParameters;

    const MESSAGE: &[u8] = b"From: a@nec.example\r\nSubject: plan\r\n\r\nbody words\r\n";

    fn recipient(address: &str, notify: Option<&str>, orcpt: Option<&str>) -> Recipient {
        Recipient {
            address: Address::parse(address).unwrap(),
            notify: notify.map(str::to_owned),
            orcpt: orcpt.map(str::to_owned),
        }
    }

    fn written(recipients: Vec<Recipient>, edit: impl FnOnce(&mut Envelope)) -> Option<String> {
        written_about(recipients, edit, MESSAGE).map(|notice| {
            assert!(!notice.eight_bit);
            text(&notice)
        })
    }

    fn text(notice: &Notice) -> String {
        String::from_utf8(notice.message.concat()).unwrap()
    }

    fn written_about(
        recipients: Vec<Recipient>,
        edit: impl FnOnce(&mut Envelope),
        message: &'static [u8],
    ) -> Option<Notice> {
        let mut envelope = Envelope {
            reverse_path: Some(Address::parse("alice@nec.example").unwrap()),
            recipients,
            parameters: MailParameters::default(),
        };
        edit(&mut envelope);
        let reply = Reply::new(550, (5, 1, 1), "mx.abc.example said: 550 unknown\r\nX: injected");
        notice(Action::Failed, &envelope, (&reply, "mx.abc.example"), message)
    }

    /// Of all recipients the same, said by one server.
    fn notice(
        action: Action,
        envelope: &Envelope,
        (reply, remote): (&Reply, &str),
        message: &'static [u8],
    ) -> Option<Notice> {
        let about =
            |recipient| PerRecipient { recipient, reply: reply.clone(), remote: Some(remote) };
        Notification {
            id: "ID1",
            hostname: "gate.nec.example",
            date: "Mon, 23 Nov 2026 09:00:00 +0000",
            envelope,
            action,
            recipients: &envelope.recipients.iter().map(about).collect::<Vec<_>>(),
            message: &Message::new(Bytes::from_static(message)),
        }
        .write()
        .unwrap()
    }

    #[test]
    fn says_who_was_refused_by_whom_and_why() {
        let orcpt = Some("rfc822;Bob+2Bx@abc.example");
        let text =
            written(vec![recipient("bob@abc.example", Some("FAILURE"), orcpt)], |envelope| {
                envelope.parameters.envid = Some("QQ+3D1".to_owned());
            })
            .unwrap();
        for line in [
            "To: <alice@nec.example>",
            "Auto-Submitted: auto-replied",
            "Content-Type: multipart/report; report-type=delivery-status;",
            "Original-Envelope-Id: QQ=1",
            "Reporting-MTA: dns; gate.nec.example",
            "Original-Recipient: rfc822;Bob+x@abc.example",
            "Final-Recipient: rfc822;bob@abc.example",
            "Action: failed",
            "Status: 5.1.1",
            "Remote-MTA: dns; mx.abc.example",
            "Diagnostic-Code: smtp; 550 5.1.1 mx.abc.example said: 550 unknown??X: injected",
            "Content-Type: text/rfc822-headers",
            "Subject: plan",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("body words"), "the header section only, unless asked");
        assert!(!text.contains("\nX: injected"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }

    proptest! {
        #[test]
        fn no_foreign_word_breaks_a_line_or_makes_a_field(
            said in "(?s).{0,40}", orcpt in "(?s).{0,20}", long in 0_usize..2500, remote in "(?s).{0,9}"
        ) {
            let to = recipient("b@x.example", None, Some(&format!("rfc822;{orcpt}")));
            let envelope = Envelope {
                reverse_path: Some(Address::parse("alice@nec.example").unwrap()),
                recipients: vec![to],
                parameters: MailParameters { envid: Some(said.clone()), ..Default::default() },
            };
            let reply = Reply::new(550, (5, 1, 1), format!("{said}{}", "x".repeat(long)));
            let notice = notice(Action::Failed, &envelope, (&reply, &remote), MESSAGE);
            let text = text(&notice.unwrap());
            prop_assert!(text.is_ascii());
            prop_assert!(text.split("\r\n").all(|line| line.len() <= 998));
            prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']));
            let status = text.split("message/delivery-status\r\n\r\n").nth(1).unwrap();
            let status = status.split("\r\n--").next().unwrap();
            let fields = status.lines().filter(|line| !line.starts_with('\t') && !line.is_empty());
            prop_assert_eq!(fields.count(), 9, "{}", status);
        }
    }

    #[test]
    fn each_refused_recipient_has_its_group() {
        let to = ["b@x.example", "c@x.example"].map(|to| recipient(to, None, None));
        let text = written(to.into(), |_| {}).unwrap();
        assert_eq!(text.matches("\r\n\r\nFinal-Recipient:").count(), 2, "{text}");
    }

    #[test]
    fn the_whole_message_returns_where_it_was_asked_for() {
        let text = written(vec![recipient("b@x.example", None, None)], |envelope| {
            envelope.parameters.ret = Some(Ret::Full);
        })
        .unwrap();
        assert!(text.contains("Content-Type: message/rfc822\r\n"), "{text}");
        assert!(text.contains("body words\r\n\r\n--"), "{text}");
    }

    #[test]
    fn nobody_hears_who_did_not_want_to() {
        for notify in ["NEVER", "SUCCESS", "DELAY,SUCCESS"] {
            let to = vec![recipient("b@x.example", Some(notify), None)];
            assert!(written(to, |_| {}).is_none(), "{notify}");
        }
        let to = vec![
            recipient("quiet@x.example", Some("NEVER"), None),
            recipient("b@x.example", Some("SUCCESS,failure"), None),
        ];
        let text = written(to, |_| {}).unwrap();
        assert!(text.contains("b@x.example") && !text.contains("quiet@"), "{text}");
        let to = vec![recipient("b@x.example", None, None)];
        assert!(written(to, |envelope| envelope.reverse_path = None).is_none());
    }

    #[test]
    fn who_asked_for_success_hears_where_no_confirmation_will_come() {
        let asked = |notify| recipient("b@x.example", notify, Some("rfc822;b@x.example"));
        let envelope = Envelope {
            reverse_path: Some(Address::parse("alice@nec.example").unwrap()),
            recipients: vec![asked(Some("FAILURE,success"))],
            parameters: MailParameters { ret: Some(Ret::Full), ..MailParameters::default() },
        };
        let reply = Reply::new(250, (2, 1, 5), "queued");
        let relayed = |envelope: &Envelope| {
            let said = (&reply, "mx.abc.example");
            notice(Action::Relayed, envelope, said, MESSAGE).map(|notice| text(&notice))
        };
        let text = relayed(&envelope).unwrap();
        for line in [
            "Subject: Handed to mail servers that confirm no delivery",
            "Message-ID: <ID1.relayed@gate.nec.example>",
            "Original-Recipient: rfc822;b@x.example",
            "Final-Recipient: rfc822;b@x.example",
            "Action: relayed",
            "Status: 2.1.5",
            "Remote-MTA: dns; mx.abc.example",
            "Content-Type: text/rfc822-headers",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("body words") && !text.contains("refused"), "{text}");
        for notify in [None, Some("NEVER"), Some("FAILURE"), Some("FAILURE,DELAY")] {
            let envelope = Envelope { recipients: vec![asked(notify)], ..envelope.clone() };
            assert!(relayed(&envelope).is_none(), "{notify:?}");
        }
        assert!(relayed(&Envelope { reverse_path: None, ..envelope }).is_none(), "from <>");
    }

    #[test]
    fn what_is_not_ascii_stays_readable_and_declared() {
        let to = || vec![recipient("jörg@x.example", None, None)];
        let text = written(to(), |_| {}).unwrap();
        assert!(text.contains("Final-Recipient: utf-8;j\\x{F6}rg@x.example\r\n"), "{text}");
        let message = "Subject: grün\r\n\r\nx\r\n".as_bytes();
        let notice = written_about(to(), |_| {}, message).unwrap();
        assert!(notice.eight_bit);
        assert!(self::text(&notice).contains("Content-Transfer-Encoding: 8bit\r\n"));
    }

    #[test]
    fn xtext_is_undone_and_wrong_xtext_is_left() {
        for (text, expected) in [
            ("a+2Bb", "a+b"),
            ("plain", "plain"),
            ("a+ZZ", "a+ZZ"),
            ("a+0D+0Ab", "a+0D+0Ab"),
            ("end+2", "end+2"),
        ] {
            assert_eq!(from_xtext(text), expected);
        }
    }
}
