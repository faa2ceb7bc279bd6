//! What one message demands of the connections that it takes, and what those turned out to be, for the log.
//!
//! In: policy, the envelope's REQUIRETLS (RFC 8689 §4.2.1) and the header's TLS-Required (§5). Out: a [`Demand`] for each
//! recipient, before it is routed; a [`Passage`] for each copy, once it was admitted.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use sealgate_core::envelope::Envelope;
use sealgate_core::mime::Header;
use sealgate_core::policy::{LinkTls, Policy};
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::report::Direction;
use serde::Serialize;

/// What a message for one recipient demands of the way to its next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Demand {
    /// Our policy.
    pub(crate) tls: LinkTls,
    /// The sender's demand: every hop verified, and told so (RFC 8689 §2).
    pub(crate) requiretls: bool,
    /// The sender would rather have it delivered than protected by what the recipient's domain publishes (§5).
    pub(crate) is_optional: bool,
}

/// One message's.
#[derive(Debug, Default)]
pub(crate) struct Transport {
    demands: Vec<Demand>,
    passages: Mutex<Vec<Passage>>,
    unconfirmed: Mutex<BTreeMap<usize, Unconfirmed>>,
    opened_refused: Mutex<Vec<String>>,
    is_outbound: bool,
}

/// What a host said that confirms no delivery.
#[derive(Clone, Debug)]
pub(crate) struct Unconfirmed {
    /// Its name.
    pub(crate) host: String,
    /// Its 2xx, the text cut.
    pub(crate) reply: Reply,
}

/// How one copy went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Passage {
    /// The host's name, or address where it was named so.
    pub(crate) host: String,
    /// Its address.
    pub(crate) address: IpAddr,
    /// The host's name came by DNSSEC.
    pub(crate) dnssec: bool,
    /// None without TLS.
    pub(crate) tls: Option<LinkReport>,
    /// What an MTA-STS policy in testing mode would have come to: `pass`, or the failure by the words of RFC 8460 §4.3, or
    /// `sts-mx-mismatch`; none without such a policy.
    pub(crate) mta_sts_testing: Option<&'static str>,
    /// Whether the host offers DSN (RFC 3461): else it confirms no delivery.
    pub(crate) dsn: bool,
    /// Whether the host offers SMTPUTF8 (RFC 6531).
    #[serde(skip)]
    pub(crate) smtputf8: bool,
}

/// A connection's TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LinkReport {
    /// `TLSv1_3`
    pub(crate) version: String,
    /// `TLS13_AES_256_GCM_SHA384`
    pub(crate) cipher: String,
    /// How the server's name was proven: `dane`, `mta-sts`, `certificate` or `none`.
    pub(crate) verified: &'static str,
}

impl fmt::Display for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = self.tls.as_ref().map_or("plain", |tls| tls.verified);
        write!(f, "{}[{}]/{tls}", self.host, self.address)
    }
}

impl Transport {
    /// # Errors
    /// The refusal of a header that contradicts itself.
    pub(crate) fn new(
        direction: Direction,
        policy: &Policy,
        envelope: &Envelope,
        header: Bytes,
    ) -> Result<Self, Refusal> {
        let requiretls = envelope.parameters.requiretls;
        // RFC 8689 §5: where both are given the field counts for nothing.
        let is_optional = tls_is_optional(header)? && !requiretls;
        if direction == Direction::Inbound {
            return Ok(Self::default());
        }
        let from = envelope.reverse_path.as_ref();
        let demand = |to| Demand { tls: policy.decide(from, to).tls, requiretls, is_optional };
        let demands = envelope.recipients.iter().map(|to| demand(&to.address)).collect();
        Ok(Self { demands, is_outbound: true, ..Self::default() })
    }

    /// The demand for a recipient, by index into the envelope.
    pub(crate) fn demand(&self, recipient: usize) -> Demand {
        self.demands.get(recipient).copied().unwrap_or_default()
    }

    /// Notes how a copy went.
    pub(crate) fn note(&self, passage: Passage) {
        self.passages.lock().unwrap_or_else(PoisonError::into_inner).push(passage);
    }

    /// Looks at how the last copy went, where there was one.
    pub(crate) fn with_last_passage(&self, look: impl FnOnce(&Passage)) {
        let passages = self.passages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(passage) = passages.last() {
            look(passage);
        }
    }

    /// Notes, going out, that a recipient has the message through a host that offers no DSN, and what that said.
    pub(crate) fn note_unconfirmed(&self, recipient: usize, host: &str, reply: &Reply) {
        if self.is_outbound {
            let said: String = reply.text().chars().take(SAID_CHARS_MAX).collect();
            let reply = Reply { lines: vec![said], ..*reply };
            let one = Unconfirmed { host: host.to_owned(), reply };
            let mut unconfirmed = self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner);
            unconfirmed.insert(recipient, one);
        }
    }

    /// Those recipients, by index into the envelope; they are forgotten.
    pub(crate) fn take_unconfirmed(&self) -> BTreeMap<usize, Unconfirmed> {
        std::mem::take(&mut *self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes what was said when opened content was refused: code and status only, for the words may tell of the content.
    pub(crate) fn note_opened_refused(&self, reply: &Reply) {
        let said = format!("{} {}", reply.code, reply.enhanced_text());
        let mut refused = self.opened_refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.push(said.trim_end().to_owned());
    }

    /// What was noted of that.
    pub(crate) fn opened_refused(&self) -> Vec<String> {
        self.opened_refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was noted.
    pub(crate) fn passages(&self) -> Vec<Passage> {
        self.passages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Of what a host said.
const SAID_CHARS_MAX: usize = 200;

/// Whether the header says `TLS-Required: No`.
fn tls_is_optional(header: Bytes) -> Result<bool, Refusal> {
    // A header that cannot be read is the data processor's to refuse.
    let Ok(header) = Header::parse(header) else { return Ok(false) };
    let mut fields = header.all("TLS-Required");
    let (first, second) = (fields.next(), fields.next());
    if second.is_some() {
        return Err(Refusal::BadMessage("more than one TLS-Required field"));
    }
    Ok(first.is_some_and(|field| field.value_unfolded().trim().eq_ignore_ascii_case("no")))
}

#[cfg(test)]
mod tests {
    use sealgate_core::address::Address;
    use sealgate_core::envelope::{MailParameters, Recipient};
    use sealgate_core::policy::{Decision, Overrides, Pattern, Rule};

    use super::*;

    fn demand(requiretls: bool, header: &'static str) -> Result<Demand, Refusal> {
        let policy = Policy {
            domains: Vec::new(),
            defaults: Decision::default(),
            rules: vec![Rule {
                from: Vec::new(),
                to: vec![Pattern::parse("*@abc.example").unwrap()],
                overrides: Overrides { tls: Some(LinkTls::Require), ..Overrides::default() },
            }],
        };
        let envelope = Envelope {
            reverse_path: None,
            recipients: vec![Recipient::new(Address::parse("bob@abc.example").unwrap())],
            parameters: MailParameters { requiretls, ..MailParameters::default() },
        };
        let header = Bytes::from_static(header.as_bytes());
        Transport::new(Direction::Outbound, &policy, &envelope, header).map(|all| all.demand(0))
    }

    #[test]
    fn policy_parameter_and_field_are_read() {
        let plain = demand(false, "Subject: x\r\n").unwrap();
        assert_eq!(plain, Demand { tls: LinkTls::Require, ..Demand::default() });
        assert!(demand(false, "TLS-Required: No\r\n").unwrap().is_optional);
        assert!(demand(false, "tls-required:  NO \r\n").unwrap().is_optional);
        assert!(!demand(false, "TLS-Required: yes\r\n").unwrap().is_optional);
        let both = demand(true, "TLS-Required: No\r\n").unwrap();
        assert!(both.requiretls && !both.is_optional);
    }

    #[test]
    fn two_fields_are_refused() {
        let header = "TLS-Required: No\r\nTLS-Required: No\r\n";
        let refused = Refusal::BadMessage("more than one TLS-Required field");
        assert_eq!(demand(false, header).unwrap_err(), refused);
        let policy =
            Policy { domains: Vec::new(), defaults: Decision::default(), rules: Vec::new() };
        let (reverse_path, recipients) = (None, Vec::new());
        let envelope = Envelope { reverse_path, recipients, parameters: MailParameters::default() };
        let header = Bytes::from_static(header.as_bytes());
        let inbound = Transport::new(Direction::Inbound, &policy, &envelope, header);
        assert_eq!(inbound.map(drop).unwrap_err(), refused);
    }
}
