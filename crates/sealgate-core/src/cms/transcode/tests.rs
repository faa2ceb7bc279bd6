//! Cases of X.690 §8.1.3 and §8.7, and what must stay untouched.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{DEPTH_MAX, to_der};
use crate::cms::CmsError;
use crate::cms::element::tlv;

fn assert_becomes(ber: &[u8], der: &[u8]) {
    assert_eq!(to_der(ber).as_deref(), Ok(der));
    assert!(matches!(to_der(der), Ok(Cow::Borrowed(_))), "DER was copied");
}

#[test]
fn indefinite_lengths_become_definite() {
    assert_becomes(&[0x30, 0x80, 0x02, 1, 5, 0, 0], &[0x30, 3, 0x02, 1, 5]);
    assert_becomes(&[0x30, 0x80, 0x31, 0x80, 0, 0, 0, 0], &[0x30, 2, 0x31, 0]);
    assert_becomes(&[0x30, 0x04, 0x31, 0x80, 0, 0], &[0x30, 2, 0x31, 0]);
}

#[test]
fn long_lengths_become_minimal() {
    assert_becomes(&[0x30, 0x81, 3, 0x02, 1, 5], &[0x30, 3, 0x02, 1, 5]);
    assert_becomes(&[0x04, 0x88, 0, 0, 0, 0, 0, 0, 0, 2, 8, 9], &[0x04, 2, 8, 9]);
    assert_becomes(&[0x30, 4, 0x04, 0x82, 0, 0], &[0x30, 2, 0x04, 0]);
}

#[test]
fn constructed_octet_strings_collapse() {
    assert_becomes(&[0x24, 0x80, 0x04, 1, 7, 0x04, 2, 8, 9, 0, 0], &[0x04, 3, 7, 8, 9]);
    assert_becomes(&[0x24, 4, 0x24, 2, 0x04, 0], &[0x04, 0]);
    assert_becomes(&[0x24, 0x80, 0x24, 0x80, 0x04, 1, 7, 0, 0, 0x04, 1, 8, 0, 0], &[0x04, 2, 7, 8]);
    assert_eq!(to_der(&[0x24, 3, 0x02, 1, 7]), Err(CmsError::Malformed), "no OCTET STRING inside");
}

/// SEQUENCE { OID, [0] { SEQUENCE { INTEGER, SET {}, SEQUENCE { OID, third } } } } around a third
/// member.
fn content_info(members: &[&[u8]]) -> Vec<u8> {
    let inner = tlv(0x30, members);
    let middle = tlv(0x30, &[&[2, 1, 0], &[0x31, 0], &inner]);
    tlv(0x30, &[&[6, 1, 42], &tlv(0xa0, &[&middle])])
}

#[test]
fn encrypted_content_collapses_and_explicit_content_does_not() {
    let oid = [6, 1, 42];
    let segments = tlv(0xa0, &[&[0x04, 1, 7], &[0x04, 1, 8]]);
    let encrypted = content_info(&[&oid, &[0x30, 0], &segments]);
    assert_becomes(&encrypted, &content_info(&[&oid, &[0x30, 0], &[0x80, 2, 7, 8]]));
    // SignedData: [0] EXPLICIT is the second member.
    let explicit = content_info(&[&oid, &tlv(0xa0, &[&[0x24, 3, 0x04, 1, 7]])]);
    assert_becomes(&explicit, &content_info(&[&oid, &[0xa0, 3, 0x04, 1, 7]]));
}

#[test]
fn signed_bytes_stay_as_they_came() {
    // certificates [0]: a member with a length that is too long, next to something that changes.
    let odd = [0x30, 0x81, 3, 0x02, 1, 5];
    let certificates = tlv(0xa0, &[&odd]);
    let signed = |set: &[u8]| {
        let inner = tlv(0x30, &[&[2, 1, 1], &certificates, set]);
        tlv(0x30, &[&[6, 1, 42], &tlv(0xa0, &[&inner])])
    };
    assert_becomes(&signed(&[0x31, 0x80, 0, 0]), &signed(&[0x31, 0]));
    // signedAttrs [0] of a SignerInfo: its own header is made definite, its content is not touched.
    let signer = |attributes: &[u8]| {
        let signer = tlv(0x30, &[&[2, 1, 1], attributes]);
        let inner = tlv(0x30, &[&[2, 1, 1], &tlv(0x31, &[&signer])]);
        tlv(0x30, &[&[6, 1, 42], &tlv(0xa0, &[&inner])])
    };
    let received = [&[0xa0, 0x80][..], &odd, &[0, 0]].concat();
    assert_becomes(&signer(&received), &signer(&tlv(0xa0, &[&odd])));
}

#[test]
fn what_does_not_end_is_malformed() {
    let cases: [&[u8]; 12] = [
        &[],
        &[0x30],
        &[0x30, 0x80],
        &[0x30, 0x80, 0],
        &[0x30, 1],
        &[0, 0],
        &[0x30, 0, 0],
        &[0x04, 0x80, 0, 0],
        &[0x30, 2, 0x04, 1, 7],
        &[0x30, 3, 0x30, 0x80, 0, 0],
        &[0x30, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0],
    ];
    for case in cases {
        assert_eq!(to_der(case), Err(CmsError::Malformed), "{case:02x?}");
    }
}

#[test]
fn depth_is_limited() {
    let nested = |depth: usize| (0..depth).fold(vec![4, 0], |inner, _| tlv(0x30, &[&inner]));
    assert!(to_der(&nested(DEPTH_MAX)).is_ok());
    assert_eq!(to_der(&nested(DEPTH_MAX + 1)), Err(CmsError::OverLimit));
    let open = [0x30, 0x80].repeat(1_000_000);
    assert_eq!(to_der(&open), Err(CmsError::OverLimit));
}

#[test]
fn time_is_linear_in_hostile_input() {
    let started = Instant::now();
    // Half a million empty segments; then a deep stack around a quarter of a million elements.
    let mut segments = vec![0x24, 0x80];
    segments.extend([4, 0].repeat(500_000));
    segments.extend([0, 0]);
    assert!(to_der(&segments).as_deref() == Ok(&[4, 0]));
    let mut deep = [0x30, 0x80].repeat(DEPTH_MAX - 1);
    deep.extend([0x31, 0x80, 0, 0].repeat(250_000));
    deep.extend([0, 0].repeat(DEPTH_MAX - 1));
    assert!(to_der(&deep).is_ok());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

proptest! {
    #[test]
    fn transcoding_is_idempotent(bytes in prop::collection::vec(prop::sample::select(
        vec![0_u8, 1, 2, 3, 4, 6, 0x24, 0x30, 0x31, 0x80, 0x81, 0xa0, 0xa1, 0xff]), 0..40)) {
        if let Ok(der) = to_der(&bytes) {
            let again = to_der(&der).map(Cow::into_owned);
            prop_assert_eq!(again.as_deref(), Ok(&*der));
        }
    }
}
