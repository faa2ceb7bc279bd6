//! What was opened goes on by SMTP, whatever octets were inside.

use std::borrow::Cow;

use super::*;

#[test]
fn authenticated_content_may_have_odd_fields_and_octets() {
    let world = World::new();
    let odd = b"Content-Type: text/plain; name=\"\xe4\"\r\nContent-Transfer-Encoding: binary\r\n\r\na\nb\0c\r\n";
    let sealed = world.sealed(&[Bytes::from_static(odd)], GCM, &world.bob);
    let outcome = world.take(&mail(FROM_ALICE, &sealed));
    row(&outcome, "250", Delivered::Plain, Verdict::None, Some(Reason::EncryptedUnsigned));
    let whole = joined(&outcome.result.as_ref().unwrap().parcels[0].message);
    assert!(mime::is_transportable(&whole), "no bare LF and no NUL goes downstream");
    let opened = Entity::parse(whole).unwrap();
    assert_eq!(&mime::decode_body(&opened).unwrap()[..], b"a\nb\0c\r\n");
}

/// What the Internet did not see must not become a field of the message, or an SMTP command, because some take a lone LF or
/// CR for the end of a line.
#[test]
fn a_field_of_opened_content_stays_one_line_for_every_reader() {
    let world = World::new();
    let forged = "X-Sealgate-Verdict: pass";
    for end in ["\n", "\r", "\0", "\n\n", "\r\r\n", "\n.\n"] {
        let field = format!("Content-Description: x{end}{forged}\r\n");
        let long = format!("Content-ID: {}\r\n", "x".repeat(999));
        for body in ["a\r\n", "a\nb\0c\r\n"] {
            let entity = format!("Content-Type: text/plain\r\n{field}{long}\r\n{body}");
            let sealed = world.sealed(&[Bytes::from(entity)], GCM, &world.bob);
            let outcome = world.take(&mail(FROM_ALICE, &sealed));
            row(&outcome, "250", Delivered::Plain, Verdict::None, Some(Reason::EncryptedUnsigned));
            let whole = joined(&outcome.result.as_ref().unwrap().parcels[0].message);
            assert!(mime::is_transportable(&whole), "{end:?}: {}", whole.escape_ascii());
            let opened = Entity::parse(whole).unwrap();
            assert_eq!(opened.header.count("X-Sealgate-Verdict"), 1, "{end:?}");
            assert_eq!(&mime::decode_body(&opened).unwrap()[..], body.as_bytes(), "{end:?}");
        }
    }
}

/// C13: it would stand in the outer header section, where such a pair is refused.
#[test]
fn opened_content_that_says_twice_what_it_is_is_not_shown() {
    let world = World::new();
    for twice in [
        "Content-Type: text/plain\r\nContent-Type: text/html\r\n",
        "Content-Type: text/plain\r\nContent-Transfer-Encoding: 7bit\r\ncontent-transfer-encoding: base64\r\n",
        "Content-Disposition: inline\r\nContent-Disposition: attachment\r\n",
    ] {
        let payload = format!("{twice}\r\nPHA+\r\n");
        let sealed = world.sealed(&[Bytes::from(payload.clone())], GCM, &world.bob);
        refused(&world.take(&mail(FROM_ALICE, &sealed)));
        let opaque = world.opaque(payload.as_bytes(), &world.alice.signing);
        // What its author signed stays in the signature.
        let outcome = world.take(&mail(FROM_ALICE, &opaque));
        row(&outcome, "250", Delivered::AsReceived, Verdict::Pass, None);
        let inside = world.sealed(&opaque, GCM, &world.bob);
        let outcome = world.take(&mail(FROM_ALICE, &inside));
        row(&outcome, "250", Delivered::Plain, Verdict::Pass, None);
        assert!(outcome.message(0).contains("pkcs7-mime"), "{}", outcome.message(0));
    }
}

#[test]
fn a_field_of_opened_content_with_long_lines_is_folded() {
    let world = World::new();
    let [a, b] = ["a", "b"].map(|letter| letter.repeat(600));
    for body in ["<p>\r\n", "<p>\n"] {
        let entity = format!("Content-Type: text/html; x=\"{a}\"; name=\"{b}\"\r\n\r\n{body}");
        let sealed = world.sealed(&[Bytes::from(entity)], GCM, &world.bob);
        let outcome = world.take(&mail(FROM_ALICE, &sealed));
        let whole = joined(&outcome.result.as_ref().unwrap().parcels[0].message);
        assert!(mime::is_transportable(&whole), "{}", whole.escape_ascii());
        let opened = Entity::parse(whole).unwrap();
        let found = opened.header.content_type().unwrap().unwrap();
        assert_eq!((&*found.kind, &*found.subtype), ("text", "html"));
        assert_eq!(found.parameter("name").as_deref(), Some(b.as_str()));
    }
}

/// In quotes it is one parameter, and was when the signature was verified.
#[test]
fn folding_makes_no_other_boundary_of_a_parameter() {
    let world = World::new();
    let signed = joined(&world.signed(PAYLOAD, &world.alice.signing));
    let signed = String::from_utf8(signed.to_vec()).unwrap();
    let long = "a".repeat(900);
    let type_end = signed.find(';').unwrap();
    let (start, rest) = signed.split_at(type_end);
    let rest = rest.replacen("\r\n\t", " ", 9).replacen("\r\n ", " ", 9);
    let forged = format!("{start}; x*=\"a; boundary=evil\"; y=\"{long}\"{rest}");
    let sealed = world.sealed(&[Bytes::from(forged)], GCM, &world.bob);
    let outcome = world.take(&mail(FROM_ALICE, &sealed));
    assert_eq!(outcome.report.verdict, Verdict::Pass, "{:?}", outcome.report);
    let opened =
        Entity::parse(joined(&outcome.result.as_ref().unwrap().parcels[0].message)).unwrap();
    let found = opened.header.content_type().unwrap();
    let boundary = found.and_then(|found| found.parameter("boundary").map(Cow::into_owned));
    assert_ne!(boundary.as_deref(), Some("evil"));
    assert!(!opened.header.bytes().windows(6).any(|six| six == b"=evil;"));
}

/// An entity need not have a body, nor its last field an end.
#[test]
fn opened_content_that_ends_in_its_header_is_a_whole_message() {
    let world = World::new();
    let sealed = world.sealed(&[Bytes::from_static(b"Content-Type: text/html")], GCM, &world.bob);
    let outcome = world.take(&mail(FROM_ALICE, &sealed));
    let whole = outcome.message(0);
    assert!(whole.ends_with("Content-Type: text/html\r\n\r\n"), "{whole}");
}
