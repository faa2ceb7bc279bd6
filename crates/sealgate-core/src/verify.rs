//! Mail signature checking: whether a message is whole, and whose it is.

use std::sync::Arc;

use crate::address::Address;
use crate::keys::{Capabilities, Certificate, Timestamp};

/// What verified mail teaches about its signer (REQUIREMENTS D26, F18): candidates for the public key store.
#[derive(Clone, Debug)]
pub struct Harvest {
    /// The From address that the signature is bound to.
    pub address: Address,
    /// The signer's certificates that can be encrypted to.
    pub certificates: Vec<Arc<Certificate>>,
    /// Certificates of authorities that came along.
    pub intermediates: Vec<Arc<Certificate>>,
    /// What the signer's software reads.
    pub capabilities: Option<Capabilities>,
    /// When it was signed, by the signer's own word; older never overwrites newer.
    pub signed_at: Option<Timestamp>,
}
