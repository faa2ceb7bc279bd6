//! What the two state machines say to the relay, and what it answers.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;

use crate::address::Address;
use crate::keys::{LookupError, OwnKey, PublicKey};
use crate::refusal::Refusal;
use crate::report::{Delivered, Report};
use crate::verify::Harvest;

/// The next thing to do for one message.
#[derive(Debug)]
pub enum Step {
    /// Ask the key stores these, put the answers into [`Keys`], and step again.
    Want(Vec<KeyQuery>),
    /// Deliver these downstream.
    Done(Box<Done>),
    /// Answer upstream with this refusal; nothing goes downstream.
    Refused(Box<(Refusal, Report)>),
}

/// A message transformed.
#[derive(Debug)]
pub struct Done {
    /// Copies. Together with `deferred` they name every recipient of the envelope exactly once, but for those who
    /// were said to have the message already.
    pub parcels: Vec<Parcel>,
    /// Indices into `Envelope::recipients`: for their copies there was no room ([`Refusal::TooManyCopies`]). The next
    /// attempt has fewer to serve.
    pub deferred: Vec<usize>,
    /// What was done.
    pub report: Report,
    /// Certificates and capabilities of a signer whose mail passed, for the public key store.
    pub harvest: Option<Harvest>,
}

/// Memory for copies; whoever runs the state machine keeps the books (REQUIREMENTS K10).
pub trait Room: fmt::Debug + Send + Sync {
    /// Takes so many octets; `false` where there are not so many left, and nothing is taken.
    fn take(&self, bytes: usize) -> bool;
}

/// One copy of a message for the next hop.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Indices into `Envelope::recipients`.
    pub recipients: Vec<usize>,
    /// The message is the concatenation of these.
    pub message: Vec<Bytes>,
    /// What this copy is.
    pub delivered: Delivered,
    /// Whether the copy has octets above 127 in its body, so that it needs 8BITMIME.
    pub eight_bit: bool,
}

impl Parcel {
    /// Size in bytes.
    pub fn size_bytes(&self) -> usize {
        self.message.iter().map(Bytes::len).sum()
    }
}

/// A question to the key stores.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyQuery {
    /// Our secret keys that may decrypt for this recipient, its domain's key included; expired ones too.
    Decryption(Address),
    /// Certificates that mail to this address can be encrypted to; candidates, not yet validated.
    Public(Address),
    /// Our secret keys that may sign for this originator.
    Signing(Address),
}

/// The answers so far.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Answers to [`KeyQuery::Signing`] and [`KeyQuery::Decryption`].
    pub own: HashMap<KeyQuery, Result<Vec<OwnKey>, LookupError>>,
    /// Answers to [`KeyQuery::Public`].
    pub public: HashMap<Address, Result<Vec<PublicKey>, LookupError>>,
}
