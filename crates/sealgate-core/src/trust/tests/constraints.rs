//! RFC 5280 §4.2.1.10: an authority below vouches for no mailbox outside its constraints, wherever the mailbox is written.

use rcgen::{
    CustomExtension, DistinguishedName, DnType, DnValue, GeneralSubtree, NameConstraints, SanType,
};

use super::making::Authority;
use super::{plain_store, sign_in};
use crate::address::Address;
use crate::trust::*;

const EMAIL_ADDRESS: &[u64] = &[1, 2, 840, 113_549, 1, 9, 1];
const VICTIM: &str = "victim@big.example";

fn with_email(value: DnValue) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "A person");
    name.push(DnType::CustomDnType(EMAIL_ADDRESS.to_vec()), value);
    name
}

/// An authority that may vouch for partner.example only.
fn constrained(root: &Authority) -> Authority {
    Authority::adjusted(Some(root), "Below", |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::Rfc822Name("partner.example".to_owned())],
            excluded_subtrees: vec![],
        });
    })
}

#[test]
fn a_mailbox_in_the_subject_is_bound_or_not_read() {
    let root = Authority::root("Root");
    let below = constrained(&root);
    let store = plain_store(&root, &[&below]);
    let alternative = |text: &str| vec![SanType::Rfc822Name(text.try_into().unwrap())];
    let inside = below.person_adjusted(1, |params| {
        params.subject_alt_names = alternative("a@partner.example");
    });
    assert_eq!(sign_in(&store, &inside, 2026), Trust::Trusted);
    let outside = below.person_adjusted(2, |params| params.subject_alt_names = alternative(VICTIM));
    assert_eq!(sign_in(&store, &outside, 2026), Trust::Untrusted);
    for (value, is_read) in [
        (DnValue::Ia5String(VICTIM.try_into().unwrap()), true),
        (DnValue::Utf8String(VICTIM.to_owned()), true),
        (DnValue::TeletexString(VICTIM.try_into().unwrap()), false),
        (DnValue::BmpString(VICTIM.try_into().unwrap()), false),
    ] {
        let person = below.person_adjusted(3, |params| {
            params.subject_alt_names = Vec::new();
            params.distinguished_name = with_email(value.clone());
        });
        let names = person.addresses();
        assert_eq!(names.contains(&Address::parse(VICTIM).unwrap()), is_read, "{value:?}");
        let is_trusted = sign_in(&store, &person, 2026) == Trust::Trusted;
        assert!(names.is_empty() || !is_trusted, "{value:?}");
    }
}

#[test]
fn a_mailbox_beside_names_that_cannot_be_read_is_vouched_for_by_nobody() {
    let root = Authority::root("Root");
    let below = constrained(&root);
    let store = plain_store(&root, &[&below]);
    // [2], a name of DNS that is no text, and [3], which is no X.400 address.
    for other in [&[0x82, 1, 0xff][..], &[0xa3, 1, 0xff]] {
        let mut names = vec![0x81, u8::try_from(VICTIM.len()).unwrap()];
        names.extend_from_slice(VICTIM.as_bytes());
        names.extend_from_slice(other);
        let content = [&[0x30, u8::try_from(names.len()).unwrap()][..], &names].concat();
        let person = below.person_adjusted(4, |params| {
            params.subject_alt_names = Vec::new();
            let extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], content);
            params.custom_extensions = vec![extension];
        });
        assert_eq!(person.addresses(), [Address::parse(VICTIM).unwrap()], "this reader is lenient");
        assert_eq!(sign_in(&store, &person, 2026), Trust::Untrusted, "{other:x?}");
    }
}
