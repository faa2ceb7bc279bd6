//! Whether one certificate issued another, by the signature and not by names alone.
//!
//! For those who choose among certificates of one name, as an authority has them after a change of its key. Nothing is judged:
//! whether what was issued is to be believed is asked of a whole path.

use certval::compare_names;

use crate::keys::Certificate;
use crate::trust::link::Link;
use crate::trust::signature::Checks;

/// Whether a certificate bears the issuer's name and its signature verifies with the issuer's key. What we cannot verify did not.
pub fn is_issued_by(certificate: &Certificate, issuer: &Certificate) -> bool {
    let (Some(below), Some(above)) = (Link::parse(certificate), Link::parse(issuer)) else {
        return false;
    };
    compare_names(below.issuer(), above.subject())
        && matches!(Checks::default().verify(below.signed(), above.key()), Ok(Some(_)))
}
