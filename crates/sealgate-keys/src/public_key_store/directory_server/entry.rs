//! One entry of an answer (SearchResultEntry, RFC 4511 §4.5.2) and the certificates in it (RFC 4523 §2.1, RFC 2798
//! §2.8), as the octets that the server sent.

use ldap3::asn1::{PL, StructureTag};

/// An entry: what of it concerns certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Distinguished name.
    pub(super) name: String,
    /// Values of `userCertificate`: X.509.
    pub(super) certificates: Vec<Vec<u8>>,
    /// Values of `userSMIMECertificate`: CMS SignedData.
    pub(super) signed_data: Vec<Vec<u8>>,
}

impl Entry {
    /// Reads `{ name, { { type, { value ... } } ... } }`. Nothing where it has another form.
    pub(super) fn read(tag: StructureTag) -> Option<Self> {
        let mut members = constructed(tag)?.into_iter();
        let name = String::from_utf8(primitive(members.next()?)?).ok()?;
        let mut entry = Self { name, ..Self::default() };
        for attribute in constructed(members.next()?)? {
            let mut members = constructed(attribute)?.into_iter();
            let description = primitive(members.next()?)?;
            let Some(values) = entry.values_of(&description) else { continue };
            for value in constructed(members.next()?)? {
                values.push(primitive(value)?);
            }
        }
        Some(entry)
    }

    /// Octets of its values.
    pub(super) fn size(&self) -> usize {
        self.certificates.iter().chain(&self.signed_data).map(Vec::len).sum()
    }

    /// Where the values of an attribute go. Options such as `;binary` are of no concern: some servers leave them out.
    fn values_of(&mut self, description: &[u8]) -> Option<&mut Vec<Vec<u8>>> {
        let name = description.split(|b| *b == b';').next().unwrap_or_default();
        if name.eq_ignore_ascii_case(USER_CERTIFICATE.as_bytes()) {
            Some(&mut self.certificates)
        } else if name.eq_ignore_ascii_case(USER_SMIME_CERTIFICATE.as_bytes()) {
            Some(&mut self.signed_data)
        } else {
            None
        }
    }
}

fn constructed(tag: StructureTag) -> Option<Vec<StructureTag>> {
    match tag.payload {
        PL::C(members) => Some(members),
        PL::P(_) => None,
    }
}

fn primitive(tag: StructureTag) -> Option<Vec<u8>> {
    match tag.payload {
        PL::C(_) => None,
        PL::P(octets) => Some(octets),
    }
}

const USER_CERTIFICATE: &str = "userCertificate";
const USER_SMIME_CERTIFICATE: &str = "userSMIMECertificate";

/// What is asked for. Servers that keep certificates without the option `;binary` (RFC 4523 §2.1 asks for it) know only
/// the plain names.
pub(super) const ATTRIBUTES: &[&str] = &[
    USER_CERTIFICATE_BINARY,
    USER_CERTIFICATE,
    "userSMIMECertificate;binary",
    USER_SMIME_CERTIFICATE,
];

/// Where certificates are written.
pub(super) const USER_CERTIFICATE_BINARY: &str = "userCertificate;binary";

#[cfg(test)]
mod tests {
    use ldap3::asn1::TagClass;
    use ldap3::asn1::parse_tag;
    use proptest::prelude::*;

    use super::*;

    fn of(id: u64, payload: PL) -> StructureTag {
        StructureTag { class: TagClass::Universal, id, payload }
    }

    fn text(octets: &[u8]) -> StructureTag {
        of(4, PL::P(octets.to_vec()))
    }

    fn list(members: Vec<StructureTag>) -> StructureTag {
        of(16, PL::C(members))
    }

    #[test]
    fn attributes_are_told_apart_whatever_their_case_and_options() {
        let attribute = |name: &str, value: &[u8]| {
            list(vec![text(name.as_bytes()), list(vec![text(value), text(b"more")])])
        };
        let entry = Entry::read(list(vec![
            text(b"cn=Bob,dc=example"),
            list(vec![
                attribute("usercertificate;BINARY", b"1"),
                attribute("userCertificate", b"2"),
                attribute("userSMIMECertificate;binary", b"3"),
                attribute("userCertificates", b"4"),
                attribute("mail", b"5"),
            ]),
        ]));
        let values = |octets: &[&[u8]]| octets.iter().map(|octets| octets.to_vec()).collect();
        let expected = Entry {
            name: "cn=Bob,dc=example".to_owned(),
            certificates: values(&[b"1", b"more", b"2", b"more"]),
            signed_data: values(&[b"3", b"more"]),
        };
        assert_eq!(entry, Some(expected));
    }

    #[test]
    fn an_entry_of_another_form_is_none() {
        for tag in [
            text(b""),
            list(vec![]),
            list(vec![text(b"cn=Bob")]),
            list(vec![text(&[0xff]), list(vec![])]),
            list(vec![text(b"cn=Bob"), text(b"")]),
            list(vec![text(b"cn=Bob"), list(vec![list(vec![])])]),
            list(vec![
                text(b"cn=Bob"),
                list(vec![list(vec![text(b"userCertificate"), text(b"")])]),
            ]),
            list(vec![text(b"cn=Bob"), list(vec![list(vec![text(b"userCertificate")])])]),
        ] {
            assert_eq!(Entry::read(tag.clone()), None, "{tag:?}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(mut octets in prop::collection::vec(any::<u8>(), 0..200)) {
            // Mostly constructed, so that the reader gets somewhere.
            for octet in octets.iter_mut().step_by(3) {
                *octet = [0x30, 0x31, 0x04, 0x05][usize::from(*octet) % 4];
            }
            if let Ok((_, tag)) = parse_tag(&octets) {
                let _ = Entry::read(tag);
            }
        }
    }
}
