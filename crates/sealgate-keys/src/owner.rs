//! Whose a key is: one mailbox, or everybody of a domain.

use std::fmt;
use std::str::FromStr;

use sealgate_core::address::{Address, Domain};

/// A mailbox or, written `@example.org`, a whole domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Everybody of a domain.
    Domain(Domain),
    /// One mailbox.
    Mailbox(Address),
}

impl Owner {
    /// The form that the database and comparisons use: lower case, `@domain` for a domain.
    pub fn lookup_key(&self) -> String {
        match self {
            Self::Domain(domain) => format!("@{domain}"),
            Self::Mailbox(address) => address.lookup_key(),
        }
    }

    /// The domain, or the mailbox's domain.
    pub fn domain(&self) -> &Domain {
        match self {
            Self::Domain(domain) => domain,
            Self::Mailbox(address) => address.domain(),
        }
    }

    /// The mailbox; `None` for a domain.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Domain(_) => None,
            Self::Mailbox(address) => Some(address),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => write!(f, "@{domain}"),
            Self::Mailbox(address) => address.fmt(f),
        }
    }
}

impl From<&Address> for Owner {
    fn from(address: &Address) -> Self {
        Self::Mailbox(address.clone())
    }
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |_| format!("`{text}` is neither a mail address nor @domain");
        match text.strip_prefix('@') {
            Some(domain) => Domain::parse(domain).map(Self::Domain).map_err(bad),
            None => Address::parse_foreign(text).map(Self::Mailbox).map_err(bad),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_and_a_domain_are_told_apart() {
        let mailbox: Owner = "Alice@NEC.example".parse().unwrap();
        assert_eq!(mailbox.lookup_key(), "alice@nec.example");
        let domain: Owner = "@NEC.example".parse().unwrap();
        assert_eq!(domain.lookup_key(), "@nec.example");
        assert_eq!(domain.address(), None);
        for text in ["", "@", "alice", "a b@c", "@a@b"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }
}
