//! Why a message is refused, and the only table from refusals to SMTP replies (RFC 5321 §4.2, RFC 3463).

use std::fmt;

use crate::address::Address;

/// Everything a sender can be refused for. Nothing else reaches the other side of an SMTP session, and no variant
/// carries what happened behind a secret key (REQUIREMENTS 0.1).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The message contradicts RFC 5322 in a way that clients read differently (C13), or passes a limit of its format.
    BadMessage(&'static str),
    /// Falsified, or unreadable behind one of our keys: deliberately one and the same.
    Falsified,
    /// The transformation failed on our side, or panicked.
    Internal,
    /// A key store or the key's keeper does not answer.
    KeysUnavailable,
    /// More than the hop limit: a mail loop.
    Loop,
    /// Policy demands encryption and this recipient has no usable key.
    NoEncryptionKey(Address),
    /// Policy demands a signature and the originator has no usable key, or may not use it.
    NoSigningKey(Address),
    /// Neither end is ours: no open relay.
    NotOurs(Address),
    /// The mail server must assert who wrote a message whose From is not the envelope's sender.
    OriginatorNotAsserted,
    /// Out of memory budget or of crypto threads.
    Overloaded,
    /// The next hop could not be reached.
    NextHopUnreachable,
    /// The next hop does not speak an extension that this message needs.
    NextHopLacks(Extension),
    /// No usable answer came from the next hop in time.
    NextHopTimeout,
    /// What the next hop said, passed on.
    NextHop(Reply),
    /// The next hop refused content that we decrypted: said without its text (D25).
    NextHopRefusedOpened,
    /// Being shut down.
    ShuttingDown,
    /// This recipient's encryption (CBC) must not go without a signature, and there is none.
    SignatureNeeded(Address),
    /// Over the size limit.
    TooLarge,
    /// The recipients need more copies of their own than there is memory for; some others are served.
    TooManyCopies,
}

/// An SMTP extension that a message may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// RFC 6152.
    EightBitMime,
    /// RFC 8689.
    RequireTls,
    /// RFC 6531.
    SmtpUtf8,
}

/// One SMTP reply (RFC 5321 §4.2) with its enhanced status (RFC 2034).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits, 200 to 599.
    pub code: u16,
    /// Class, subject, detail; `None` where a reply has none.
    pub enhanced: Option<(u8, u16, u16)>,
    /// Text without line ends, control characters or non-ASCII octets, one entry a line.
    pub lines: Vec<String>,
}

impl Reply {
    /// A one-line reply.
    pub fn new(code: u16, enhanced: (u8, u16, u16), text: impl Into<String>) -> Self {
        Self { code, enhanced: Some(enhanced), lines: vec![text.into()] }
    }

    /// Whether the code is 2xx.
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Whether the code is 5xx.
    pub fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }

    /// The enhanced status as text, `5.7.7`; empty where there is none.
    pub fn enhanced_text(&self) -> String {
        self.enhanced.map_or_else(String::new, |(class, subject, detail)| {
            format!("{class}.{subject}.{detail}")
        })
    }

    /// The lines joined by spaces.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.enhanced {
            Some(_) => write!(f, "{} {} {}", self.code, self.enhanced_text(), self.text()),
            None => write!(f, "{} {}", self.code, self.text()),
        }
    }
}

impl From<&Refusal> for Reply {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::BadMessage(what) => {
                Self::new(550, (5, 6, 0), format!("message refused: {what}"))
            }
            Refusal::Falsified => Self::new(550, (5, 7, 7), "message integrity failure: refused"),
            Refusal::Internal => Self::new(451, (4, 3, 0), "internal error, try again later"),
            Refusal::KeysUnavailable => {
                Self::new(451, (4, 7, 5), "key service not available, try again later")
            }
            Refusal::Loop => Self::new(554, (5, 4, 6), "too many hops: mail loop"),
            Refusal::NoEncryptionKey(address) => Self::new(
                550,
                (5, 7, 3),
                format!(
                    "encryption is required and there is no usable key for <{}>",
                    printable(address)
                ),
            ),
            Refusal::NoSigningKey(address) => Self::new(
                550,
                (5, 7, 3),
                format!(
                    "a signature is required and there is no usable key for <{}>",
                    printable(address)
                ),
            ),
            Refusal::NotOurs(address) => {
                Self::new(550, (5, 7, 1), format!("relaying denied for <{}>", printable(address)))
            }
            Refusal::OriginatorNotAsserted => Self::new(
                550,
                (5, 7, 1),
                "a signature is required, and From is not the one address of the envelope's sender",
            ),
            Refusal::Overloaded => Self::new(452, (4, 3, 1), "out of resources, try again later"),
            Refusal::NextHopUnreachable => {
                Self::new(451, (4, 4, 1), "next hop not reachable, try again later")
            }
            Refusal::NextHopLacks(Extension::EightBitMime) => {
                Self::new(550, (5, 6, 3), "next hop does not take 8-bit content")
            }
            Refusal::NextHopLacks(Extension::RequireTls) => {
                Self::new(550, (5, 7, 30), "next hop does not take mail that requires TLS")
            }
            Refusal::NextHopLacks(Extension::SmtpUtf8) => {
                Self::new(553, (5, 6, 7), "next hop does not take UTF-8 addresses or headers")
            }
            Refusal::NextHopTimeout => {
                Self::new(451, (4, 4, 2), "next hop did not answer in time, try again later")
            }
            Refusal::NextHop(reply) => reply.clone(),
            Refusal::NextHopRefusedOpened => Self::new(550, (5, 7, 1), "message refused"),
            Refusal::ShuttingDown => Self::new(421, (4, 3, 2), "shutting down, try again later"),
            Refusal::SignatureNeeded(address) => Self::new(
                550,
                (5, 7, 3),
                format!(
                    "encryption to <{}> needs a signature, and the originator has no key",
                    printable(address)
                ),
            ),
            Refusal::TooLarge => Self::new(552, (5, 3, 4), "message too large"),
            // RFC 5321 §4.5.3.1.10: the client sends again to those who are left.
            Refusal::TooManyCopies => {
                Self::new(452, (4, 5, 3), "too many copies at once, try again later for the rest")
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Reply::from(self).fmt(f)
    }
}

/// An address in a reply text: printable ASCII only, so that it cannot end the line.
fn printable(address: &Address) -> String {
    address
        .to_string()
        .chars()
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_refusal() -> Vec<(Refusal, &'static str)> {
        let address = Address::parse("bob@abc.example").unwrap();
        vec![
            (Refusal::BadMessage("two From fields"), "550 5.6.0"),
            (Refusal::Falsified, "550 5.7.7"),
            (Refusal::Internal, "451 4.3.0"),
            (Refusal::KeysUnavailable, "451 4.7.5"),
            (Refusal::Loop, "554 5.4.6"),
            (Refusal::NoEncryptionKey(address.clone()), "550 5.7.3"),
            (Refusal::NoSigningKey(address.clone()), "550 5.7.3"),
            (Refusal::SignatureNeeded(address.clone()), "550 5.7.3"),
            (Refusal::NotOurs(address), "550 5.7.1"),
            (Refusal::OriginatorNotAsserted, "550 5.7.1"),
            (Refusal::Overloaded, "452 4.3.1"),
            (Refusal::NextHopUnreachable, "451 4.4.1"),
            (Refusal::NextHopLacks(Extension::EightBitMime), "550 5.6.3"),
            (Refusal::NextHopLacks(Extension::RequireTls), "550 5.7.30"),
            (Refusal::NextHopLacks(Extension::SmtpUtf8), "553 5.6.7"),
            (Refusal::NextHopTimeout, "451 4.4.2"),
            (Refusal::NextHop(Reply::new(450, (4, 2, 1), "mailbox busy")), "450 4.2.1"),
            (Refusal::NextHopRefusedOpened, "550 5.7.1"),
            (Refusal::ShuttingDown, "421 4.3.2"),
            (Refusal::TooLarge, "552 5.3.4"),
            (Refusal::TooManyCopies, "452 4.5.3"),
        ]
    }

    #[test]
    fn every_refusal_has_its_reply() {
        for (refusal, start) in every_refusal() {
            let text = refusal.to_string();
            assert!(text.starts_with(start), "{refusal:?} gives {text}");
        }
    }

    #[test]
    fn class_of_code_and_of_enhanced_status_agree() {
        for (refusal, _) in every_refusal() {
            let reply = Reply::from(&refusal);
            let (class, _, _) = reply.enhanced.unwrap();
            assert_eq!(u16::from(class), reply.code / 100, "{refusal:?}");
        }
    }

    #[test]
    fn an_address_cannot_break_the_reply_line() {
        let address = Address::parse("\u{202e}ü@abc.example").unwrap();
        assert!(Refusal::NotOurs(address).to_string().is_ascii());
    }
}
