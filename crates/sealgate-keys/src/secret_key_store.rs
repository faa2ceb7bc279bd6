//! Where our secret keys are: embedded in the database, at a key management server (KMIP), or in a PKCS#11 token. What a
//! store gives out are handles, never bytes.

use std::fmt;
use std::sync::Arc;

use sealgate_core::keys::{Certificate, SecretKey};
use zeroize::Zeroizing;

use crate::error::StoreError;

pub(crate) mod embedded;
pub mod ending;
pub mod key_management_server;
pub mod pkcs11;
pub(crate) mod proof;

/// Which store the relay asks for secret keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecretKeyStoreKind {
    /// Rows of the database, wrapped under the master key.
    #[default]
    Embedded,
    /// A key management server.
    Kmip,
    /// A token with a PKCS#11 module.
    Pkcs11,
}

impl SecretKeyStoreKind {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Kmip => "kmip",
            Self::Pkcs11 => "pkcs11",
        }
    }
}

/// A store outside this process. Its calls block, each with a deadline of its own; the relay makes them on threads for
/// that.
pub trait RemoteStore: Send + Sync + fmt::Debug {
    /// All keys of one owner (an address in lower case, or `@domain`), in any order; empty where there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where the store does not answer; never an empty answer then.
    fn find(&self, owner: &str) -> Result<Vec<RemoteKey>, StoreError>;

    /// The same, for a use on behalf of an address whose own key it is, or its domain's. A store that asks for whom a key is
    /// used is told with each use.
    ///
    /// # Errors
    /// As [`Self::find`].
    fn find_for(&self, owner: &str, _address: &str) -> Result<Vec<RemoteKey>, StoreError> {
        self.find(owner)
    }

    /// The keys of a mailbox and those of its domain, for uses on behalf of the mailbox.
    ///
    /// # Errors
    /// As [`Self::find`].
    fn find_both(
        &self,
        mailbox: &str,
        domain: &str,
    ) -> Result<(Vec<RemoteKey>, Vec<RemoteKey>), StoreError> {
        Ok((self.find(mailbox)?, self.find_for(domain, mailbox)?))
    }

    /// Whether keys are used on this host's processors: more calls at once than these can serve gain nothing then.
    fn is_on_this_host(&self) -> bool {
        false
    }

    /// Every key that we may use.
    ///
    /// # Errors
    /// As [`Self::find`].
    fn list(&self) -> Result<Vec<SecretKeyEntry>, StoreError>;

    /// Shows every key that we may use, for who needs no list of them all.
    ///
    /// # Errors
    /// As [`Self::find`].
    fn visit(&self, see: &mut dyn FnMut(SecretKeyEntry)) -> Result<(), StoreError> {
        self.list()?.into_iter().for_each(see);
        Ok(())
    }

    /// Takes in keys. Each is proven there before this returns: it signs and decrypts in every way that mail needs. Where
    /// one cannot be taken in, those before it stay.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::Input`] where the store refuses this key, and as [`Self::find`].
    fn insert(&self, keys: &[NewSecretKey]) -> Result<(), StoreError>;

    /// Destroys all keys of an owner and says how many there were.
    ///
    /// # Errors
    /// As [`Self::find`].
    fn remove(&self, owner: &str) -> Result<u64, StoreError>;

    /// Whether the store can be used now; one line about it for the administrator.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(&self) -> Result<String, StoreError>;

    /// Whether the store answers now: cheaper than [`Self::check`], for those who ask every few seconds.
    ///
    /// # Errors
    /// As [`Self::find`].
    fn ping(&self) -> Result<(), StoreError> {
        self.check().map(drop)
    }
}

/// A key in a store outside this process.
#[derive(Clone, Debug)]
pub struct RemoteKey {
    /// The certificate.
    pub certificate: Arc<Certificate>,
    /// Issuers upwards, as far as the store has them.
    pub chain: Vec<Arc<Certificate>>,
    /// The handle.
    pub secret: Arc<dyn SecretKey>,
    /// Not so once it was revoked, which only some stores know.
    pub is_active: bool,
}

impl RemoteKey {
    /// What is known of it without the secret.
    pub(crate) fn entry(&self, owner: &str) -> SecretKeyEntry {
        let purpose = KeyPurpose::of(&self.certificate).map_or("none", KeyPurpose::as_str);
        SecretKeyEntry {
            owner: owner.to_owned(),
            purpose: purpose.to_owned(),
            certificate: Arc::clone(&self.certificate),
            chain: self.chain.clone(),
            is_active: self.is_active,
        }
    }
}

/// A secret key to be stored.
pub struct NewSecretKey {
    /// Address or domain, as a look-up key.
    pub owner: String,
    /// What its certificate allows.
    pub purpose: KeyPurpose,
    /// The key (RFC 5958).
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// Its certificate.
    pub certificate: Arc<Certificate>,
    /// Issuers upwards, without the root.
    pub chain: Vec<Arc<Certificate>>,
}

/// What a secret key is for, by its certificate's key usage (RFC 5280 §4.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPurpose {
    /// Signing and decrypting.
    Both,
    /// Decrypting.
    Encrypt,
    /// Signing.
    Sign,
}

impl KeyPurpose {
    /// Whether a key for this serves that.
    pub fn serves(self, wanted: Self) -> bool {
        self == Self::Both || self == wanted
    }

    /// What a certificate allows; `None` where it allows neither.
    pub fn of(certificate: &Certificate) -> Option<Self> {
        match (certificate.may_sign(), certificate.may_encrypt()) {
            (true, true) => Some(Self::Both),
            (false, true) => Some(Self::Encrypt),
            (true, false) => Some(Self::Sign),
            (false, false) => None,
        }
    }

    /// The word that the database and `list` show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Encrypt => "encrypt",
            Self::Sign => "sign",
        }
    }
}

/// Where a secret key is in its life (KMIP 1.4 §3.22). One that is not active decrypts what is old, and no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyState {
    /// In use.
    #[default]
    Active,
    /// Others may have it.
    Compromised,
    /// Superseded, or its owner is gone.
    Deactivated,
}

impl KeyState {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Compromised => "compromised",
            Self::Deactivated => "deactivated",
        }
    }

    /// The state that a word means; `None` for others.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        let states = [Self::Active, Self::Compromised, Self::Deactivated];
        states.into_iter().find(|state| state.as_str() == word)
    }
}

/// What is known of a secret key without touching the secret.
#[derive(Clone, Debug)]
pub struct SecretKeyEntry {
    /// Address in lower case, or `@domain`.
    pub owner: String,
    /// `sign`, `encrypt` or `both`.
    pub purpose: String,
    /// The certificate.
    pub certificate: Arc<Certificate>,
    /// Issuers upwards.
    pub chain: Vec<Arc<Certificate>>,
    /// Not so once it was revoked: it decrypts what is old, and nobody is to be given its certificate.
    pub is_active: bool,
}
