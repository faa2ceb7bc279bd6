//! What an attacker can do to a captured ciphertext without any key, for tests.

use super::CmsError;
use super::element::{CONSTRUCTED_0, Reader, SEQUENCE, SET, set_of, tlv};

/// A ContentInfo to whose recipients those of another one are added.
pub(crate) fn with_recipients_of(captured: &[u8], other: &[u8]) -> Result<Vec<u8>, CmsError> {
    let (kind, members) = members(captured)?;
    let infos = |members: &[(u8, Vec<u8>)]| -> Result<Vec<Vec<u8>>, CmsError> {
        let (_, set) = members.iter().find(|(tag, _)| *tag == SET).ok_or(CmsError::Malformed)?;
        let infos = Reader::only(set, SET)?.reader();
        infos.map(|info| info.map(|info| info.whole.to_vec())).collect()
    };
    let mut all = infos(&members)?;
    all.extend(infos(&self::members(other)?.1)?);
    let all = set_of(SET, all);
    let parts: Vec<&[u8]> = members
        .iter()
        .map(|(tag, whole)| if *tag == SET { &all[..] } else { &whole[..] })
        .collect();
    let content = tlv(SEQUENCE, &parts);
    Ok(tlv(SEQUENCE, &[&kind, &tlv(CONSTRUCTED_0, &[&content])]))
}

/// The contentType and, each with its tag, the members of the content.
fn members(der: &[u8]) -> Result<(Vec<u8>, Vec<(u8, Vec<u8>)>), CmsError> {
    let mut info = Reader::only(der, SEQUENCE)?.reader();
    let kind = info.element()?.whole.to_vec();
    let content = Reader::only(info.expect(CONSTRUCTED_0)?.body, SEQUENCE)?.reader();
    let members = content.map(|member| member.map(|one| (one.tag, one.whole.to_vec())));
    Ok((kind, members.collect::<Result<_, _>>()?))
}
