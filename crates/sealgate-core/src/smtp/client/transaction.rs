//! What one transaction asks of a server, and what a server offers for it.

use super::xclient::XclientAttributes;
use crate::address::Address;
use crate::envelope::{MailParameters, Recipient};
use crate::refusal::{Extension, Refusal};

/// What the server offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 8689.
    pub requiretls: bool,
    /// RFC 1870; the limit in octets, where one is given.
    pub size: Option<Option<u64>>,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// Postfix's XCLIENT, with what may be said in it.
    pub xclient: XclientAttributes,
}

/// One transaction.
#[derive(Clone, Debug)]
pub struct Transaction<'a> {
    /// MAIL FROM.
    pub reverse_path: Option<&'a Address>,
    /// Parameters of MAIL; SIZE is replaced by the size below.
    pub parameters: &'a MailParameters,
    /// RCPT TO.
    pub recipients: Vec<&'a Recipient>,
    /// Octets of the message; 0: not known, and not said.
    pub size_bytes: u64,
    /// Whether the content has octets above 127.
    pub eight_bit: bool,
    /// Whether its header section has octets above 127, for which the sender asked for SMTPUTF8 (RFC 6532).
    pub utf8_header: bool,
}

impl Transaction<'_> {
    /// Whether it cannot be sent without. That the sender said the word is no reason: it is not for what does not need it
    /// (RFC 6531 §3.4), and some say it wherever it is offered.
    pub(super) fn needs_smtputf8(&self) -> bool {
        self.utf8_header
            || self.reverse_path.is_some_and(Address::needs_smtputf8)
            || self.recipients.iter().any(|to| to.address.needs_smtputf8())
    }
}

/// What a server does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// It does not offer an extension that this message needs.
    Extension(Extension),
    /// It takes no messages of this size.
    Size,
}

impl From<Lack> for Refusal {
    fn from(lack: Lack) -> Self {
        match lack {
            Lack::Extension(extension) => Self::NextHopLacks(extension),
            Lack::Size => Self::TooLarge,
        }
    }
}
