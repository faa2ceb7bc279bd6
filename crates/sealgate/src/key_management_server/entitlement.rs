//! Who is at the other end, and what he may do with whose keys.

use std::net::SocketAddr;
use std::sync::Arc;

use sealgate_core::address::Address;
use sealgate_core::policy::Pattern;
use sealgate_keys::owner::Owner;

use crate::config::{Identity, KeyOperation, RelayEntry};

/// What is known of the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// Over TLS, with a certificate that one of our authorities made.
    Tls {
        /// Where it comes from.
        address: SocketAddr,
        /// The certificate's names, in lower case.
        names: Vec<String>,
    },
    /// Over the unix socket.
    Unix {
        /// Its user id.
        uid: u32,
        /// Its process id, where the system tells.
        pid: Option<i32>,
    },
}

/// A peer that the configuration names.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// As in the configuration.
    pub(crate) name: String,
    /// For the audit.
    pub(crate) peer: String,
    relay: Arc<RelayEntry>,
}

impl Peer {
    /// For the audit.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Tls { address, .. } => address.to_string(),
            Self::Unix { uid, pid: Some(pid) } => format!("uid {uid} pid {pid}"),
            Self::Unix { uid, pid: None } => format!("uid {uid}"),
        }
    }

    /// What it calls itself, for the audit where nobody names it.
    pub(crate) fn names(&self) -> String {
        match self {
            Self::Tls { names, .. } => names.join(" "),
            Self::Unix { uid, .. } => format!("uid {uid}"),
        }
    }

    /// The first entry that names it.
    pub(crate) fn identify(&self, relays: &[Arc<RelayEntry>]) -> Option<Client> {
        let relay = relays.iter().find(|relay| match (&relay.identity, self) {
            (Identity::Name(name), Self::Tls { names, .. }) => names.contains(name),
            (Identity::Uid(expected), Self::Unix { uid, .. }) => expected == uid,
            _ => false,
        })?;
        let name = match &relay.identity {
            Identity::Name(name) => name.clone(),
            Identity::Uid(uid) => format!("uid {uid}"),
        };
        Some(Client { name, peer: self.describe(), relay: Arc::clone(relay) })
    }
}

impl Client {
    /// Whether it may do this at all.
    pub(crate) fn may(&self, operation: KeyOperation) -> bool {
        self.relay.operations.contains(&operation)
    }

    /// Whether an owner's keys are for it; the owner as the database writes it.
    pub(crate) fn is_for(&self, owner: &str) -> bool {
        match owner.parse::<Owner>() {
            Ok(Owner::Mailbox(address)) => {
                self.relay.keys.iter().any(|pattern| pattern.matches(Some(&address)))
            }
            Ok(Owner::Domain(domain)) => {
                let Ok(anybody) = Address::parse(&format!("anybody@{domain}")) else {
                    return false;
                };
                // A domain's key serves everybody there: one mailbox's entitlement is not enough.
                let whole = |pattern: &&Pattern| !matches!(pattern, Pattern::Mailbox(_));
                let mut patterns = self.relay.keys.iter().filter(whole);
                patterns.any(|pattern| pattern.matches(Some(&anybody)))
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(identity: Identity, keys: &[&str]) -> Arc<RelayEntry> {
        let keys = keys.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        Arc::new(RelayEntry { identity, keys, operations: vec![KeyOperation::Sign] })
    }

    #[test]
    fn a_peer_is_known_by_its_name_or_uid() {
        let relays = [
            entry(Identity::Name("gate1".to_owned()), &["*"]),
            entry(Identity::Uid(7), &["*@a.example"]),
        ];
        let address = "192.0.2.1:9".parse().unwrap();
        let tls = |name: &str| Peer::Tls { address, names: vec![name.to_owned()] };
        assert_eq!(tls("gate1").identify(&relays).unwrap().name, "gate1");
        assert!(tls("gate2").identify(&relays).is_none());
        assert!(tls("uid 7").identify(&relays).is_none());
        let client = Peer::Unix { uid: 7, pid: Some(3) }.identify(&relays).unwrap();
        assert_eq!((client.name.as_str(), client.peer.as_str()), ("uid 7", "uid 7 pid 3"));
        assert!(Peer::Unix { uid: 0, pid: None }.identify(&relays).is_none());
        assert!(client.may(KeyOperation::Sign) && !client.may(KeyOperation::Decrypt));
    }

    #[test]
    fn domain_keys_need_an_entitlement_for_the_domain() {
        for (pattern, owner, expected) in [
            ("*@a.example", "alice@a.example", true),
            ("*@a.example", "@a.example", true),
            ("*", "@a.example", true),
            ("*@*.example", "@a.example", true),
            ("*@b.example", "@a.example", false),
            ("*@b.example", "alice@a.example", false),
            ("alice@a.example", "alice@a.example", true),
            ("anybody@a.example", "@a.example", false),
            ("*", "nonsense", false),
        ] {
            let relays = [entry(Identity::Uid(7), &[pattern])];
            let client = Peer::Unix { uid: 7, pid: None }.identify(&relays).unwrap();
            assert_eq!(client.is_for(owner), expected, "{pattern} {owner}");
        }
    }
}
