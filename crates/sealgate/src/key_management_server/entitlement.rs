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
        /// The authorities that it was verified with: [`super::Settings`] tells which are ours now.
        authorities: Arc<str>,
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

    /// Whether the authorities that it was verified with are still those of the configuration.
    pub(crate) fn is_of(&self, now: Option<&str>) -> bool {
        match self {
            Self::Tls { authorities, .. } => now == Some(authorities.as_ref()),
            Self::Unix { .. } => true,
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

    /// Whether a key of this owner may be used for an address: its own, or that of its domain. What speaks for no address is
    /// judged by the configuration.
    ///
    /// # Errors
    /// Why not, for the audit.
    pub(crate) fn may_use_for(
        &self,
        owner: &str,
        used_for: Option<&str>,
    ) -> Result<(), &'static str> {
        let Some(used_for) = used_for else {
            return if self.relay.require_address { Err(FOR_NOBODY) } else { Ok(()) };
        };
        let serves = match used_for.parse::<Owner>() {
            Ok(Owner::Mailbox(address)) => {
                owner == address.lookup_key() || owner == format!("@{}", address.domain())
            }
            // The administrator's proof that the domain's key is usable.
            Ok(domain) => owner == domain.lookup_key(),
            Err(_) => false,
        };
        if serves { Ok(()) } else { Err(FOR_ANOTHER) }
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

/// Reasons of the audit.
const FOR_ANOTHER: &str = "the address that it is for is not the key's";
const FOR_NOBODY: &str = "the use does not say for which address it is";

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(identity: Identity, keys: &[&str]) -> Arc<RelayEntry> {
        let keys = keys.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        let operations = vec![KeyOperation::Sign];
        Arc::new(RelayEntry { identity, keys, operations, require_address: true })
    }

    #[test]
    fn a_peer_is_known_by_its_name_or_uid() {
        let relays = [
            entry(Identity::Name("gate1".to_owned()), &["*"]),
            entry(Identity::Uid(7), &["*@a.example"]),
        ];
        let address = "192.0.2.1:9".parse().unwrap();
        let tls = |name: &str| Peer::Tls {
            address,
            names: vec![name.to_owned()],
            authorities: Arc::from("ours"),
        };
        assert_eq!(tls("gate1").identify(&relays).unwrap().name, "gate1");
        assert!(tls("gate2").identify(&relays).is_none());
        assert!(tls("uid 7").identify(&relays).is_none());
        let client = Peer::Unix { uid: 7, pid: Some(3) }.identify(&relays).unwrap();
        assert_eq!((client.name.as_str(), client.peer.as_str()), ("uid 7", "uid 7 pid 3"));
        assert!(Peer::Unix { uid: 0, pid: None }.identify(&relays).is_none());
        assert!(client.may(KeyOperation::Sign) && !client.may(KeyOperation::Decrypt));
    }

    #[test]
    fn a_key_is_used_only_for_whom_it_is() {
        let mut relay = RelayEntry::clone(&entry(Identity::Uid(7), &["*"]));
        let client = |relay: &RelayEntry| {
            let relays = [Arc::new(relay.clone())];
            Peer::Unix { uid: 7, pid: None }.identify(&relays).unwrap()
        };
        for (owner, used_for, expected) in [
            ("alice@a.example", Some("alice@a.example"), Ok(())),
            ("alice@a.example", Some("Alice@A.example"), Ok(())),
            ("alice@a.example", Some("bob@a.example"), Err(FOR_ANOTHER)),
            ("alice@a.example", Some("@a.example"), Err(FOR_ANOTHER)),
            ("@a.example", Some("bob@a.example"), Ok(())),
            ("@a.example", Some("@a.example"), Ok(())),
            ("@a.example", Some("bob@b.example"), Err(FOR_ANOTHER)),
            ("@a.example", Some("bob@sub.a.example"), Err(FOR_ANOTHER)),
            ("alice@a.example", Some("nonsense"), Err(FOR_ANOTHER)),
            ("alice@a.example", None, Err(FOR_NOBODY)),
        ] {
            let judged = client(&relay).may_use_for(owner, used_for);
            assert_eq!(judged, expected, "{owner} {used_for:?}");
        }
        relay.require_address = false;
        assert_eq!(client(&relay).may_use_for("alice@a.example", None), Ok(()));
        let another = client(&relay).may_use_for("alice@a.example", Some("bob@a.example"));
        assert_eq!(another, Err(FOR_ANOTHER));
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
