//! Where the encrypted content, the encrypted key and the signature stand in a CMS message (RFC 5652), and messages
//! with one of them falsified.

use std::ops::Range;

use crate::der::Element;
use crate::mail;

/// What can be falsified in a sealed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The encrypted content of (Auth)EnvelopedData.
    EncryptedContent,
    /// The encrypted key of its first recipient.
    EncryptedKey,
    /// The signature value of the first signer.
    Signature,
}

/// The content type of a ContentInfo as it stands in the object identifier's last arc: 2 signed, 3 enveloped,
/// 23 authEnveloped.
pub fn content_type(cms: &[u8]) -> u8 {
    let oid = Element::at(cms, 0).child(cms, 0);
    cms[oid.contents.end - 1]
}

/// Whether SignedData holds the content that it signs (RFC 5652 §5.2: eContent).
pub fn is_opaque(cms: &[u8]) -> bool {
    let fields = Element::at(cms, 0).child(cms, 1).child(cms, 0).children(cms);
    content_type(cms) == SIGNED_DATA && fields[2].children(cms).len() > 1
}

/// Where a target stands.
pub fn locate(cms: &[u8], target: Target) -> Range<usize> {
    let content = Element::at(cms, 0).child(cms, 1).child(cms, 0);
    let fields = content.children(cms);
    match target {
        Target::Signature => {
            assert_eq!(content_type(cms), SIGNED_DATA, "no SignedData");
            // RFC 5652 §5.1: signerInfos is the last field; §5.3: signature is the last OCTET STRING of a signer.
            let signer = fields.last().unwrap().child(cms, 0);
            let strings: Vec<Element> = signer
                .children(cms)
                .into_iter()
                .filter(|field| field.tag == OCTET_STRING)
                .collect();
            strings.last().expect("a signature").octets(cms)
        }
        Target::EncryptedContent => encrypted_content_info(cms, &fields).child(cms, 2).octets(cms),
        Target::EncryptedKey => {
            let recipients = fields.iter().find(|field| field.tag == SET).expect("recipientInfos");
            let recipient = recipients.child(cms, 0);
            let parts = recipient.children(cms);
            match recipient.tag {
                // §6.2.1: KeyTransRecipientInfo ends with encryptedKey.
                SEQUENCE => parts.last().unwrap().octets(cms),
                // §6.2.2: KeyAgreeRecipientInfo ends with a list of (rid, encryptedKey).
                KEY_AGREEMENT => {
                    let keys = parts.last().unwrap().child(cms, 0);
                    keys.children(cms).last().unwrap().octets(cms)
                }
                other => panic!("RecipientInfo of another kind: {other:#x}"),
            }
        }
    }
}

/// The message with one bit in the middle of a target flipped. In a `multipart/signed` message the signature is that
/// of its second part, and the encrypted things are looked for in the first; else the message is one
/// `application/pkcs7-mime` entity.
pub fn falsified(message: &[u8], target: Target) -> Vec<u8> {
    let content_type = mail::header(message, "Content-Type").expect("a Content-Type");
    if !content_type.to_ascii_lowercase().starts_with("multipart/signed") {
        return mail::with_decoded_body(message, &flipped(&mail::decoded_body(message), target));
    }
    let boundary = mail::parameter(&content_type, "boundary").expect("a boundary");
    let parts = mail::parts(mail::body(message), &boundary);
    let part = parts[usize::from(target == Target::Signature)];
    let at = mail::find(message, part).unwrap();
    // One character of base64 changes in its place, so that every other byte of the message stays as it was.
    let flipped = flipped(&mail::decoded_body(part), target);
    let mut fresh = mail::encode_base64(&flipped).into_iter().filter(|b| !b.is_ascii_whitespace());
    let body_at = part.len() - mail::body(part).len();
    let mut out = message.to_vec();
    for byte in &mut out[at + body_at..at + part.len()] {
        if !byte.is_ascii_whitespace() {
            *byte = fresh.next().expect("as much base64 as before");
        }
    }
    out
}

/// The CMS with one bit in the middle of a target flipped.
pub fn flipped(cms: &[u8], target: Target) -> Vec<u8> {
    let range = locate(cms, target);
    let mut out = cms.to_vec();
    out[range.start + range.len() / 2] ^= 0x01;
    out
}

/// RFC 5652 §6.1: found as the sequence that begins with an object identifier and has three fields.
fn encrypted_content_info(cms: &[u8], fields: &[Element]) -> Element {
    fields
        .iter()
        .find(|field| field.tag == SEQUENCE && field.children(cms).len() == 3)
        .expect("an EncryptedContentInfo with content")
        .clone()
}

const SIGNED_DATA: u8 = 2;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OCTET_STRING: u8 = 0x04;
/// RFC 5652 §6.2: `kari [1]`.
const KEY_AGREEMENT: u8 = 0xa1;
