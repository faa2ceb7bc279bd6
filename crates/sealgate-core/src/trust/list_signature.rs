//! Whether a CRL that somebody brings was signed by the authority that it names, as far as that authority is known.
//!
//! For the import of CRLs, so that a forged or damaged one is refused while somebody looks. What
//! judges certificates by CRLs asks again, of the keys on the certificate's own path.

use std::sync::Arc;

use certval::compare_names;

use crate::keys::Certificate;
use crate::trust::link::{Link, fold};
use crate::trust::revocation::Crl;
use crate::trust::signature::Checks;

/// What is known of a CRL's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListSignature {
    /// A key of its issuer that is held made it.
    Holds,
    /// Keys of its issuer are held, and none made it.
    IsFalse,
    /// The key that the CRL names, or any of its issuer's, is not held.
    IsUnknown,
}

impl ListSignature {
    /// Checks a CRL's signature (DER) with those of the certificates held that bear its issuer's name and may sign
    /// CRLs; `None` where it is no CRL.
    pub fn check(crl: &[u8], held: &[Arc<Certificate>]) -> Option<Self> {
        let crl = Crl::parse(crl)?;
        let issuer = fold(crl.issuer());
        let checks = Checks::default();
        let mut found = Self::IsUnknown;
        for signer in held.iter().filter_map(|certificate| Link::parse(certificate)) {
            if signer.subject_fold() != issuer
                || !compare_names(signer.subject(), crl.issuer())
                || !signer.may_sign_crls()
            {
                continue;
            }
            match crl.strength_under(&signer, &checks) {
                Ok(Some(_)) => return Some(Self::Holds),
                // After a change of keys both bear the name: the old certificate says nothing of the new key's CRL.
                Ok(None) if crl.names_another_key(&signer) => {}
                Ok(None) => found = Self::IsFalse,
                Err(_) => return Some(found),
            }
        }
        Some(found)
    }
}
