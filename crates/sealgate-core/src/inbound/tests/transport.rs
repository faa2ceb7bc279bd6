//! What was opened goes on by SMTP, whatever octets were inside.

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

/// An entity need not have a body, nor its last field an end.
#[test]
fn opened_content_that_ends_in_its_header_is_a_whole_message() {
    let world = World::new();
    let sealed = world.sealed(&[Bytes::from_static(b"Content-Type: text/html")], GCM, &world.bob);
    let outcome = world.take(&mail(FROM_ALICE, &sealed));
    let whole = outcome.message(0);
    assert!(whole.ends_with("Content-Type: text/html\r\n\r\n"), "{whole}");
}
