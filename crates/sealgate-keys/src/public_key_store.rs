//! Where correspondents' certificates are: embedded in the database, and at a directory server (LDAP).

use std::sync::Arc;

use sealgate_core::keys::{Capabilities, Certificate, PublicKey};

pub mod directory_server;
pub(crate) mod embedded;

/// One of the stores that are asked for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicKeyStoreKind {
    /// Rows of the database.
    Embedded,
    /// A directory server.
    Ldap,
}

/// How far a stored certificate is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicKeyState {
    /// Learned from mail: shown to the administrator, not used.
    Candidate,
    /// Imported or accepted by the administrator.
    Pinned,
}

impl PublicKeyState {
    /// The word that the database and `list` show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Pinned => "pinned",
        }
    }
}

/// What a store has for a mailbox. A domain's certificates stand for every mailbox of it, where none of the mailbox's own can
/// be used.
#[derive(Debug, Default)]
pub(crate) struct MailboxAndDomain {
    /// The mailbox's own, the newest first.
    pub(crate) mailbox: Vec<PublicKey>,
    /// Its domain's, the newest first.
    pub(crate) domain: Vec<PublicKey>,
}

impl MailboxAndDomain {
    /// Whether there is nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.mailbox.is_empty() && self.domain.is_empty()
    }
}

/// One stored certificate of a correspondent.
#[derive(Clone, Debug)]
pub struct PublicKeyEntry {
    /// Address in lower case, or `@domain`.
    pub owner: String,
    /// How far it is believed.
    pub state: PublicKeyState,
    /// The certificate.
    pub certificate: Arc<Certificate>,
    /// Certificates that may help to build its path.
    pub intermediates: Vec<Arc<Certificate>>,
    /// What the correspondent's software was seen to read.
    pub capabilities: Option<Capabilities>,
}
