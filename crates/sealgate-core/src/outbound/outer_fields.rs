//! Header fields of what leaves: what must not, and what the transformation would make false.

use crate::address::Domain;
use crate::mime::{Field, Header};

/// The header section of a copy whose body stays: without blind recipients (REQUIREMENTS B10) and without what only we say
/// (0.5). With the empty line.
pub(super) fn for_untouched_body(header: &Header) -> Vec<u8> {
    header.without(stays_inside)
}

/// The fields that stand outside a transformed body, without an empty line: the new body brings its own Content fields.
/// Signatures of our own domains that the transformation breaks are taken off (B15).
pub(super) fn for_transformed_body(header: &Header, ours: &[Domain]) -> Vec<u8> {
    let mut fields = header.fields_without(|field| {
        stays_inside(field)
            || field.is_content()
            || field.is("MIME-Version")
            || is_own_dkim_signature(field, ours)
    });
    fields.extend_from_slice(b"MIME-Version: 1.0\r\n");
    fields
}

fn stays_inside(field: &Field<'_>) -> bool {
    field.is("Bcc") || field.is("Resent-Bcc") || field.name_starts_with(OURS)
}

/// Whether a domain of ours made it, by its `d=` (RFC 6376 §3.5).
pub(super) fn is_own_dkim_signature(field: &Field<'_>, ours: &[Domain]) -> bool {
    if !field.is("DKIM-Signature") {
        return false;
    }
    let value = field.value_unfolded();
    // RFC 6376 §3.2: white space may stand around the "=".
    let domain = value.split(';').find_map(|tag| {
        let (name, value) = tag.split_once('=')?;
        (name.trim() == "d").then(|| value.trim())
    });
    domain.and_then(|name| Domain::parse(name).ok()).is_some_and(|name| ours.contains(&name))
}

/// Every field that sealgate asserts starts like this.
const OURS: &str = "X-Sealgate-";
