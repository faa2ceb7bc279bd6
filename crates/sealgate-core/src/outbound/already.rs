//! What the sender's client did already (REQUIREMENTS B8, B9).
//!
//! In: a message from inside. Out: whether it is encrypted, signed by its author, or neither. What has only the form of a
//! signed message is content like any other: unsigned mail must not pass for signed, neither where encryption needs a
//! signature inside (F3) nor where policy demands one (B4). A client's signature that does not count stays as it is,
//! inside of ours.

use bytes::Bytes;

use crate::cms::SignedData;
use crate::envelope::Envelope;
use crate::mime::{self, Cryptographic, Entity, Protection};
use crate::outbound::Context;
use crate::report::{Reason, SignatureStatus, Verdict};
use crate::trust::Budget;
use crate::verify::{self, Judge};

/// The protection that counts. An OpenPGP signature is no S/MIME signature: CBC must not go with it alone.
pub(super) fn protection(entity: &Entity, envelope: &Envelope, context: &Context) -> Protection {
    match mime::protection(entity) {
        Protection::Signed if !is_signed_by_author(entity, envelope, context) => Protection::None,
        found => found,
    }
}

/// Whether there is a valid S/MIME signature by the one mailbox of From, whose certificate is in the message.
fn is_signed_by_author(entity: &Entity, envelope: &Envelope, context: &Context) -> bool {
    let authors = entity.header.from_mailboxes();
    let Ok([author]) = authors.as_deref() else { return false };
    if !mime::agrees_with_reader(entity) {
        return false;
    }
    let Some((signed, content)) = signed_content(entity) else { return false };
    let judge = Judge {
        author: Some(author),
        known: &[],
        trust: &context.trust,
        budget: &Budget::default(),
        now: context.now,
        clock_is_doubtful: context.clock_is_doubtful,
    };
    let Some(checked) = verify::smime::check(&signed, &content, &judge) else { return false };
    if checked.verdict == Verdict::Pass {
        return true;
    }
    // Whose certificates to believe is the recipient's affair. Where we do not, the mail server must assert who wrote the
    // message: anybody can make a certificate that names somebody.
    let is_asserted =
        envelope.reverse_path.as_ref() == Some(author) && !super::came_from_outside(entity);
    let is_merely_unknown = matches!(
        checked.reason,
        Some(Reason::ClockDoubtful | Reason::RevocationUnknown | Reason::Untrusted)
    );
    checked.status == SignatureStatus::Valid
        && checked.names_author
        && is_asserted
        && is_merely_unknown
}

/// The signature at the root and what it covers, in a form that our own kind takes behind CBC (D14).
fn signed_content(entity: &Entity) -> Option<(SignedData, Bytes)> {
    match mime::cryptographic_layer(entity) {
        Cryptographic::ClearSigned(parts) if parts.strict => {
            let signed = SignedData::parse(&mime::decode_body(&parts.signature).ok()?).ok()?;
            signed.content.is_none().then_some((signed, parts.signed))
        }
        Cryptographic::Pkcs7Mime => {
            let signed = SignedData::parse(&mime::decode_body(entity).ok()?).ok()?;
            let content = signed.content.clone().filter(|_| signed.content_is_data)?;
            Some((signed, content))
        }
        _ => None,
    }
}
