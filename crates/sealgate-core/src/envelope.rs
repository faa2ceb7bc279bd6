//! The SMTP envelope of one transaction: RFC 5321 §3.3 with the parameters of RFC 1870, 3461, 6152, 6531 and 8689.

use crate::address::Address;

/// Who a message is from and for, and the parameters that go downstream unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// MAIL FROM; `None` is the null reverse-path `<>`.
    pub reverse_path: Option<Address>,
    /// RCPT TO, in the order received.
    pub recipients: Vec<Recipient>,
    /// Parameters of MAIL.
    pub parameters: MailParameters,
}

/// ESMTP parameters of MAIL FROM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// SIZE= in bytes (RFC 1870).
    pub size_bytes: Option<u64>,
    /// BODY=8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// REQUIRETLS (RFC 8689).
    pub requiretls: bool,
    /// RET= (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// ENVID= as received, xtext (RFC 3461 §4.4).
    pub envid: Option<String>,
}

/// RET= of RFC 3461 §4.3: what a notification returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The whole message.
    Full,
    /// The header section only.
    Headers,
}

/// One RCPT TO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The mailbox.
    pub address: Address,
    /// NOTIFY= as received (RFC 3461 §4.1).
    pub notify: Option<String>,
    /// ORCPT= as received, with its address type (RFC 3461 §4.2).
    pub orcpt: Option<String>,
}

impl Recipient {
    /// A recipient without parameters.
    pub fn new(address: Address) -> Self {
        Self { address, notify: None, orcpt: None }
    }
}
