//! CMS objects that we do not write, made of those that we do, for tests: what an attacker can do to a captured ciphertext
//! without any key, and content inside of its signature.

use super::CmsError;
use super::element::{CONSTRUCTED_0, Element, OCTET_STRING, Reader, SEQUENCE, SET, set_of, tlv};

/// A ContentInfo to whose recipients those of another one are added.
pub(crate) fn with_recipients_of(captured: &[u8], other: &[u8]) -> Result<Vec<u8>, CmsError> {
    let mut all = recipients(captured)?;
    all.extend(recipients(other)?);
    with_member(captured, SET, |_| set_of(SET, all.clone()))
}

/// A SignedData without content with that content put into it, which its signature covers already.
pub(crate) fn with_content(detached: &[u8], signed: &[u8]) -> Result<Vec<u8>, CmsError> {
    let octets = tlv(CONSTRUCTED_0, &[&tlv(OCTET_STRING, &[signed])]);
    // The one SEQUENCE is encapContentInfo (RFC 5652 §5.1).
    with_member(detached, SEQUENCE, |info| tlv(SEQUENCE, &[info.body, &octets]))
}

/// A ContentInfo in whose content the members of this tag are others.
fn with_member(
    info: &[u8],
    tag: u8,
    change: impl Fn(&Element<'_>) -> Vec<u8>,
) -> Result<Vec<u8>, CmsError> {
    let kind = Reader::only(info, SEQUENCE)?.reader().element()?.whole;
    let mut parts = Vec::new();
    for member in content(info)? {
        let member = member?;
        parts.push(if member.tag == tag { change(&member) } else { member.whole.to_vec() });
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Ok(tlv(SEQUENCE, &[kind, &tlv(CONSTRUCTED_0, &[&tlv(SEQUENCE, &parts)])]))
}

/// The RecipientInfos of a ContentInfo.
fn recipients(info: &[u8]) -> Result<Vec<Vec<u8>>, CmsError> {
    let mut sets = content(info)?.filter(|member| member.as_ref().is_ok_and(|m| m.tag == SET));
    let set = sets.next().ok_or(CmsError::Malformed)??;
    set.reader().map(|info| info.map(|info| info.whole.to_vec())).collect()
}

/// The members of the content of a ContentInfo.
fn content(info: &[u8]) -> Result<Reader<'_>, CmsError> {
    let mut info = Reader::only(info, SEQUENCE)?.reader();
    info.element()?;
    Ok(Reader::only(info.expect(CONSTRUCTED_0)?.body, SEQUENCE)?.reader())
}
