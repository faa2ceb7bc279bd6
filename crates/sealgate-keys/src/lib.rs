//! sealgate's key stores: secret keys sealed at rest, correspondents' certificates, and whom we trust.
//!
//! The relay asks [`stores::Stores`] and knows nothing of where keys are. The administrator's commands go through
//! [`stores::Stores::administration`]. Embedded stores are tables of one database ([`database`]); secret keys are
//! wrapped under the master key ([`master_key`]). Secret keys may as well be at a key management server or in a PKCS#11
//! token ([`secret_key_store`]), certificates at a directory server ([`public_key_store`]). Nothing here decides whether
//! a certificate is trusted: that is `sealgate_core::trust`.

pub mod administration;
pub mod authority;
pub mod database;
pub mod done_record;
pub mod import;
pub mod key_ring;
pub mod kmip;
pub mod master_key;
pub mod mta_sts_policies;
pub mod owner;
pub mod public_key_store;
pub mod secret_key_store;
pub mod secret_source;
pub mod stores;
pub mod tls_files;
pub mod tls_names;

mod cache;
mod certificates;
mod error;
mod key_check;
mod learning;
mod tcp;
mod tls;
mod trust_source;

pub use error::StoreError;
