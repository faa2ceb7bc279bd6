//! A PKCS#11 token as a secret key store: configuration; the store itself where the feature `pkcs11` is built in.
//!
//! Keys stay in the token and sign and decrypt there. An owner's keys are found by their label or as the configuration
//! names them. Calls run on threads of the token with a session each; a token that was away is found
//! again without a restart.

use std::path::PathBuf;

use crate::secret_source::SecretSource;

#[cfg(not(feature = "pkcs11"))]
mod absent;
#[cfg(feature = "pkcs11")]
mod connection;
#[cfg(feature = "pkcs11")]
mod fault;
#[cfg(feature = "pkcs11")]
mod module;
#[cfg(feature = "pkcs11")]
mod new_key;
#[cfg(feature = "pkcs11")]
mod oaep;
#[cfg(feature = "pkcs11")]
mod objects;
#[cfg(feature = "pkcs11")]
mod operation;
#[cfg(feature = "pkcs11")]
mod proof;
#[cfg(feature = "pkcs11")]
mod store;
#[cfg(feature = "pkcs11")]
mod worker;

#[cfg(not(feature = "pkcs11"))]
pub use absent::{Token, end_modules};
#[cfg(feature = "pkcs11")]
pub use module::end_modules;
#[cfg(feature = "pkcs11")]
pub use store::Token;

/// Which token, and how keys are found in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11Config {
    /// The shared object of the token's vendor.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// The user PIN.
    pub pin: SecretSource,
    /// `CKA_LABEL` of an owner's keys and certificates; `{address}` stands for the owner.
    pub label: String,
    /// Keys that are named otherwise.
    pub keys: Vec<Pkcs11Key>,
}

/// A key that the label template does not find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11Key {
    /// Whose: an address in lower case, or `@domain`.
    pub owner: String,
    /// Its `CKA_LABEL`.
    pub label: Option<String>,
    /// Its `CKA_ID`.
    pub id: Option<Vec<u8>>,
    /// PEM file with certificate and chain, where the token holds none.
    pub certificate: Option<PathBuf>,
}
