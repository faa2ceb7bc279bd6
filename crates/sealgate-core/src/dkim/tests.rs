//! Canonical forms of RFC 6376 §3.4.5 and the fields that come out; other programs verify them in the program's tests.

use bytes::Bytes;

use super::canonical::{Content, relaxed};
use super::*;
use crate::keys::SoftwareKey;

fn segments(pieces: &[&str]) -> Vec<Bytes> {
    pieces.iter().map(|piece| Bytes::copy_from_slice(piece.as_bytes())).collect()
}

fn body_digest(pieces: &[&str]) -> String {
    base64_simd::STANDARD.encode_to_string(Content::of(&segments(pieces)).body_digest())
}

fn signer() -> Signer {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let key = SoftwareKey::from_pkcs8(&pair.serialize_der()).unwrap();
    let kind = key.kind();
    let domains = vec![Domain::parse("nec.example").unwrap()];
    Signer::new(Arc::new(key), kind, "s1.gate", domains).unwrap()
}

#[test]
fn fields_are_relaxed() {
    let mut out = Vec::new();
    relaxed(b"A", b" X", &mut out);
    relaxed(b"B", b" Y\t\r\n\tZ  ", &mut out);
    assert_eq!(out, b"a:X\r\nb:Y Z\r\n");
}

#[test]
fn a_body_is_the_same_in_any_pieces_and_with_any_empty_lines_at_its_end() {
    let whole = body_digest(&["A: 1\r\n\r\n C \r\nD \t E\r\n\r\n\r\n"]);
    for pieces in [
        &["A: 1\r\n\r\n C \r\nD \t E"][..],
        &["A: 1\r\n", "\r\n C \r\nD \t E\r\n", "\r\n", "\r\n"],
        &["A: 1\r\n\r\n", " C \r\nD \t E\r", "\n\r", "\n"],
    ] {
        assert_eq!(body_digest(pieces), whole, "{pieces:?}");
    }
    assert_ne!(body_digest(&["A: 1\r\n\r\n C \r\nD \t E\n\n"]), whole);
    // RFC 6376 §3.4.3: the empty body is one line end.
    let empty = "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=";
    assert_eq!(body_digest(&["A: 1\r\n\r\n"]), empty);
    assert_eq!(body_digest(&["A: 1\r\n"]), empty);
    assert_eq!(body_digest(&["A: 1\r\n\r\n", "\r\n", "\r\n"]), empty);
}

#[test]
fn every_field_is_signed_once_more_than_it_stands() {
    let message = segments(&["X: 1\r\nTo: a\r\nFrom: b\r\nto: c\r\n", "\r\nbody\r\n"]);
    let (list, data) = Content::of(&message).signed_fields(&["From", "To", "Cc"]);
    assert_eq!(list, "From:From:To:To:To:Cc");
    assert_eq!(data, b"from:b\r\nto:c\r\nto:a\r\n");
}

/// What is signed once more than it stands breaks where the next host puts one on.
#[test]
fn another_dkim_signature_breaks_no_arc_set() {
    let signed_names = |message: &[&str]| {
        let sealed = signer().seal(&segments(message), arc::Chain::None, "x", "none", Timestamp(1));
        let set = String::from_utf8(sealed.unwrap().unwrap().to_vec()).unwrap();
        let list = set.split_once("h=").unwrap().1.split(';').next().unwrap().to_owned();
        let count = |name| list.split(':').filter(|one| one.trim() == name).count();
        [count("From"), count("DKIM-Signature")]
    };
    assert_eq!(signed_names(&["From: a@x\r\n\r\nx\r\n"]), [2, 0]);
    assert_eq!(signed_names(&["DKIM-Signature: v=1\r\nFrom: a@x\r\n\r\nx\r\n"]), [2, 1]);
}

/// REQUIREMENTS K1. It would be a signature that does not cover From (RFC 6376 §5.4).
#[test]
fn a_header_section_that_cannot_be_read_is_not_signed() {
    let domain = Domain::parse("nec.example").unwrap();
    let sign = |fields: usize| {
        let mail = "From: a@nec.example\r\n".repeat(fields) + "\r\nx\r\n";
        signer().sign(&segments(&[&mail]), &domain, Timestamp(1)).unwrap()
    };
    assert!(sign(crate::mime::FIELDS_MAX).is_some());
    assert_eq!(sign(crate::mime::FIELDS_MAX + 1), None);
}

#[test]
fn a_signature_field_has_short_lines_and_its_tags() {
    let domain = Domain::parse("nec.example").unwrap();
    let message = segments(&["From: a@nec.example\r\n\r\nx\r\n"]);
    let field = signer().sign(&message, &domain, Timestamp(1_764_000_000)).unwrap().unwrap();
    let text = std::str::from_utf8(&field).unwrap();
    let start = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/simple; d=nec.example;\r\n\ts=s1.gate; t=1764000000;";
    assert!(text.starts_with(start), "{text}");
    assert!(text.ends_with("\r\n") && text.lines().all(|line| line.len() <= 100), "{text}");
}

#[test]
fn a_chain_is_continued_only_where_it_is_whole() {
    let set = |i: usize, cv: &str| {
        format!(
            "ARC-Seal: i={i}; cv={cv}; b=\r\nARC-Message-Signature: i={i}; b=\r\n\
             ARC-Authentication-Results: i={i}; x; none\r\n"
        )
    };
    let seal = |fields: String, chain| {
        let message = segments(&[&fields, "From: a@x\r\n\r\nbody\r\n"]);
        let sealed = signer().seal(&message, chain, "gate.nec.example", "smime=pass", Timestamp(1));
        sealed.unwrap().map(|fields| String::from_utf8(fields.to_vec()).unwrap())
    };
    let first = seal(String::new(), arc::Chain::None).unwrap();
    assert!(first.contains("i=1; a=ed25519-sha256; t=1; cv=none;"), "{first}");
    assert!(first.ends_with("i=1; gate.nec.example;\r\n\tsmime=pass\r\n"), "{first}");
    let third = seal(set(2, "pass") + &set(1, "none"), arc::Chain::Pass).unwrap();
    assert!(third.contains("ARC-Seal: i=3;") && third.contains("cv=pass"), "{third}");
    let failed = seal(set(1, "none"), arc::Chain::Fail).unwrap();
    assert!(failed.contains("ARC-Seal: i=2;") && failed.contains("cv=fail"), "{failed}");
    for (fields, chain) in [
        (set(1, "fail"), arc::Chain::Fail),
        (set(2, "pass"), arc::Chain::Pass),
        (set(1, "none") + "ARC-Seal: i=2; cv=pass\r\n", arc::Chain::Pass),
        (set(1, "none"), arc::Chain::None),
        (String::new(), arc::Chain::Pass),
        ((1..=50).map(|i| set(i, "pass")).collect(), arc::Chain::Pass),
    ] {
        assert_eq!(seal(fields.clone(), chain), None, "{fields}");
    }
}
