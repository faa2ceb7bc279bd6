//! Wherever we say that another reader agrees, `mail-parser` reading the whole message sees the same signed part.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

#[path = "fuzz_bodies/mime.rs"]
mod bodies;
#[path = "support/mails.rs"]
mod material;

use std::path::PathBuf;

use bytes::Bytes;
use material::{all_mails, mails};
use sealgate_core::mime::{Cryptographic, Entity, agrees_with_reader, cryptographic_layer};

/// Where `mail-parser` sees the first part: begin and end in bytes.
fn their_first_part(message: &[u8]) -> Option<(usize, usize)> {
    let parsed = bodies::reader().parse(message)?;
    let children = parsed.root_part().sub_parts()?;
    if children.len() != 2 {
        return None;
    }
    let first = parsed.parts.get(usize::try_from(children[0]).unwrap())?;
    let begin = usize::try_from(first.raw_header_offset()).unwrap();
    Some((begin, usize::try_from(first.raw_end_offset()).unwrap()))
}

/// Whether there is an agreement, and whether it is right.
fn agreement(bytes: &Bytes) -> Option<bool> {
    let entity = Entity::parse(bytes.clone()).ok()?;
    let Cryptographic::ClearSigned(parts) = cryptographic_layer(&entity) else { return None };
    if !agrees_with_reader(&entity) {
        return None;
    }
    let seen = their_first_part(bytes).and_then(|(begin, end)| bytes.get(begin..end));
    Some(seen.is_some_and(|seen| seen == parts.signed))
}

/// Asserts that every agreement is right; how many there were, of how many mails.
fn agreements(mails: impl Iterator<Item = (PathBuf, Bytes)>) -> (usize, usize) {
    let (mut agreed, mut all, mut wrong) = (0, 0, Vec::new());
    for (path, bytes) in mails {
        all += 1;
        match agreement(&bytes) {
            Some(true) => agreed += 1,
            Some(false) => wrong.push(path),
            None => {}
        }
    }
    assert!(wrong.is_empty(), "they see another part: {wrong:#?}");
    println!("{agreed} of {all} agreed");
    (agreed, all)
}

fn signed_around(part: &[u8]) -> Bytes {
    let head = "From: Alice <alice@nec.example>\r\nContent-Type: multipart/signed;\r\n\
                \tprotocol=\"application/pkcs7-signature\"; boundary=\"=_outer\"\r\n\r\n--=_outer\r\n";
    let tail = "\r\n--=_outer\r\nContent-Type: application/pkcs7-signature\r\n\
                Content-Transfer-Encoding: base64\r\n\r\nMAA=\r\n--=_outer--\r\n";
    Bytes::from([head.as_bytes(), part, tail.as_bytes()].concat())
}

#[test]
fn the_signed_mails_of_the_fixtures() {
    let sets = ["comm-smime", "pkits/smime", "wolfssl", "bc-mime"];
    let (agreed, _) = agreements(sets.into_iter().flat_map(mails));
    assert!(agreed >= 100, "{agreed}");
}

#[test]
fn every_mail_of_the_sets_as_a_signed_part() {
    let (agreed, all) = agreements(all_mails().map(|(path, mail)| (path, signed_around(&mail))));
    // The rest is no mail, or made to be read in two ways.
    assert!(agreed > 480, "{agreed} of {all}");
}

#[test]
fn known_traps_count_as_disagreement() {
    let ok = "Content-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\nx\r\n--i--\r\n";
    let agrees =
        |part: &str| agrees_with_reader(&Entity::parse(signed_around(part.as_bytes())).unwrap());
    assert!(agrees(ok));
    for (trap, part) in [
        ("an inner multipart without end", ok.replace("--i--", "")),
        ("an inner multipart without parts", ok.replace("--i\r\n", "")),
        ("two inner types", format!("Content-Type: text/plain\r\n{ok}")),
        ("the inner boundary twice", ok.replace("boundary=i", "boundary=i; boundary=j")),
        ("the outer boundary inside of a line", ok.replace('x', "x --=_outer")),
        ("the inner boundary inside of a line", ok.replace('x', "x --i")),
        (
            "an inner multipart that is encoded",
            format!("Content-Transfer-Encoding: base64\r\n{ok}"),
        ),
        ("a comment before the type", ok.replace("multipart", "(c)multipart")),
        ("a space in the type", ok.replace("multipart/", "multipart /")),
        (
            "a comment before a message",
            "Content-Type: (c)message/rfc822\r\n\r\nA: b\r\n\r\nx".to_owned(),
        ),
        ("a line that is no field", format!("no field\r\n{ok}")),
        ("a header section without end", "Content-Type: text/plain\r\n".to_owned()),
        ("a second delimiter behind the end", format!("{ok}--i\r\n")),
        ("white space before the first field", format!(" \r\n{ok}")),
        ("a bare line feed in a field", format!("X: a\nContent-Type: text/plain\r\n{ok}")),
    ] {
        assert!(!agrees(&part), "{trap}");
    }
}

/// It would look for the end of each of these words to the end of its field.
#[test]
fn what_would_keep_the_reader_busy_counts_as_disagreement() {
    let words = |name: &str, count: usize| format!("{name}: (a {})\r\n", "=?ab?Q?x".repeat(count));
    let part = |name: &str, count: usize| {
        format!("{}Content-Type: text/plain\r\n\r\nx", words(name, count))
    };
    let agrees =
        |part: &str| agrees_with_reader(&Entity::parse(signed_around(part.as_bytes())).unwrap());
    for name in ["From", "Content-Transfer-Encoding"] {
        assert!(agrees(&part(name, 100)), "{name}");
        assert!(!agrees(&part(name, 300)), "{name}");
    }
    // Each within the limit, and together beyond another one.
    let many = |count: usize| {
        let inner = format!("--i\r\n{}\r\n", part("From", 200)).repeat(count);
        format!("Content-Type: multipart/mixed; boundary=i\r\n\r\n{inner}--i--\r\n")
    };
    assert!(agrees(&many(50)));
    assert!(!agrees(&many(150)));
    let root = format!("From: a@b\r\n{}\r\nx", words("Content-Transfer-Encoding", 300));
    assert!(!agrees_with_reader(&Entity::parse(Bytes::from(root)).unwrap()));
}

#[test]
fn roots_that_are_read_differently_are_told() {
    let agrees =
        |text: &str| agrees_with_reader(&Entity::parse(Bytes::from(text.to_owned())).unwrap());
    assert!(agrees("From: Alice <a@b>\r\nContent-Type: text/plain\r\n\r\nx"));
    assert!(agrees("Date: Sat, 24 Mar 2007 23:00:00 Z\r\nFrom: a@b\r\n\r\nx"));
    assert!(agrees("From: a@b <a@b>\r\n\r\nx"));
    assert!(agrees("From: \"c@d\" <a@b>\r\n\r\nx"));
    assert!(agrees("Content-Type: application/pkcs7-mime\r\n\r\nx"));
    for text in [
        "From: a@b\r\nFrom: c@d\r\n\r\nx",
        "From: a@b\nFrom: c@d\r\n\r\nx",
        "From: a@b c@d\r\n\r\nx",
        "From: c@d <a@b>\r\n\r\nx",
        "Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\nx",
        "Content-Type: text\r\n\r\nx",
        " From: a@b\r\n\r\nx",
        "Fr om: a@b\r\n\r\nx",
        "From : a@b\r\n\r\nx",
        "X: y\r\nno field\r\nFrom: a@b\r\n\r\nx",
    ] {
        assert!(!agrees(text), "{text:?}");
    }
}
