//! What is safe, what becomes safe, and what is left alone.

use proptest::prelude::*;

use super::super::decode_body;
use super::*;

fn canonical(fields: &str, body: &str) -> Canonical {
    canonical_for_signing(fields.as_bytes(), &Bytes::copy_from_slice(body.as_bytes())).unwrap()
}

fn text(fields: &str, body: &str) -> String {
    String::from_utf8(canonical(fields, body).to_vec()).unwrap()
}

#[test]
fn safe_content_is_the_same_buffer() {
    let body = Bytes::from_static(b"hello\r\nworld\r\n");
    let found = canonical_for_signing(b"Content-Type: text/plain\r\n", &body).unwrap();
    assert!(found.seven_bit);
    assert_eq!(found.pieces.last().unwrap().as_ptr(), body.as_ptr());
    assert_eq!(found.to_vec(), b"Content-Type: text/plain\r\n\r\nhello\r\nworld\r\n");
}

#[test]
fn text_that_relays_touch_is_quoted() {
    let fields = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n";
    let found =
        text(fields, "Gr\u{fc}\u{df}e aus M\u{fc}nchen und noch mehr\r\n-- \r\nFrom me\r\n");
    assert_eq!(
        found,
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
         Gr=C3=BC=C3=9Fe aus M=C3=BCnchen und noch mehr\r\n=2D-=20\r\n=46rom me\r\n"
    );
    let relabelled = text(fields, "plain\r\n");
    assert!(relabelled.contains("Content-Transfer-Encoding: 7bit\r\n"), "{relabelled}");
}

#[test]
fn other_content_becomes_base64() {
    let found =
        text("Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n", "\u{1}\0\u{ff}");
    assert!(found.ends_with("Content-Transfer-Encoding: base64\r\n\r\nAQDDvw==\r\n"), "{found}");
    let long = format!("{}\r\n", "QUJD".repeat(400));
    let found = text("Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n", &long);
    assert!(is_seven_bit(found.as_bytes()));
    let again = Entity::parse(Bytes::from(found)).unwrap();
    assert_eq!(decode_body(&again).unwrap(), "ABC".repeat(400));
    let japanese = "\u{65e5}\u{672c}\u{8a9e}".repeat(40);
    assert!(text("Content-Type: text/plain; charset=utf-8\r\n", &japanese).contains("base64"));
}

#[test]
fn a_type_is_given_where_there_is_none() {
    assert!(text("", "x").starts_with("Content-Type: text/plain; charset=us-ascii\r\n\r\n"));
    assert!(
        text("", "\u{fc} and a lot of plain text")
            .starts_with("Content-Type: text/plain; charset=utf-8")
    );
}

#[test]
fn only_the_unsafe_leaf_of_a_multipart_changes() {
    let fields = "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n";
    let body =
        "notice \r\n--b \r\nContent-Type: text/plain\r\n\r\nx \r\n--b\r\n\r\nsafe\r\n--b--\r\nend";
    assert_eq!(
        text(fields, body),
        "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
         --b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nx=20\
         \r\n--b\r\n\r\nsafe\r\n--b--\r\nend"
    );
}

#[test]
fn attached_messages_are_walked() {
    let found = text(
        "Content-Type: message/rfc822\r\n",
        "Subject: x\r\nContent-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: y\r\n\r\nz \r\n--b--\r\n",
    );
    assert!(is_seven_bit(found.as_bytes()), "{found}");
    assert!(
        found.contains("Subject: y\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nz=20"),
        "{found}"
    );
}

#[test]
fn what_is_protected_is_never_altered() {
    for kind in [
        "multipart/signed; boundary=b",
        "multipart/encrypted; boundary=b",
        "application/pkcs7-mime",
        "application/x-pkcs7-signature",
        "application/octet-stream; name=a.p7m",
        "message/delivery-status",
    ] {
        let body = "--b\r\n\r\n\u{fc} \r\n--b--\r\n";
        let found = canonical(&format!("Content-Type: {kind}\r\n"), body);
        assert!(!found.seven_bit, "{kind}");
        assert_eq!(found.to_vec(), format!("Content-Type: {kind}\r\n\r\n{body}").as_bytes());
    }
}

#[test]
fn header_lines_lose_the_space_at_their_ends() {
    let found = text("Content-Type: text/plain; \r\n\tcharset=utf-8 \r\n \r\n", "x");
    assert_eq!(found, "Content-Type: text/plain;\r\n\tcharset=utf-8\r\n\r\nx");
}

#[test]
fn depth_and_number_are_bounded() {
    let nested = |depth: usize| {
        let body = Bytes::from("Content-Type: message/rfc822\r\n\r\n".repeat(depth - 1));
        canonical_for_signing(b"Content-Type: message/rfc822\r\n", &body)
    };
    assert!(nested(DEPTH_MAX).is_ok());
    assert_eq!(nested(DEPTH_MAX + 1).unwrap_err(), MimeError::OverLimit("the depth of a message"));
    let wide = |parts: usize| {
        let body = Bytes::from("--b\r\n\r\nx\r\n".repeat(parts) + "--b--\r\n");
        canonical_for_signing(b"Content-Type: multipart/mixed; boundary=b\r\n", &body)
    };
    assert!(wide(PARTS_MAX - 1).is_ok());
    assert_eq!(wide(PARTS_MAX).unwrap_err(), MimeError::OverLimit("the parts of a message"));
}

#[test]
fn line_ends_become_crlf() {
    let of = |text: &'static str| canonical_line_ends(Bytes::from_static(text.as_bytes()));
    assert_eq!(of("a\nb\rc\r\nd\n\re"), "a\r\nb\r\nc\r\nd\r\n\r\ne");
    let unchanged = Bytes::from_static(b"a\r\nb");
    assert_eq!(canonical_line_ends(unchanged.clone()).as_ptr(), unchanged.as_ptr());
}

#[test]
fn each_danger_is_seen() {
    assert!(is_seven_bit(b"a\r\n\r\n.\r\nFrom: b") && is_seven_bit(b""));
    assert!(is_seven_bit("x".repeat(LINE_BYTES_MAX).as_bytes()));
    assert!(!is_seven_bit("x".repeat(LINE_BYTES_MAX + 1).as_bytes()));
    for text in
        ["\u{e4}", "\0", "a\nb", "a\rb", "a\r", "a \r\n", "a\t", "From b", "x\r\nFrom b", "a\r\r\n"]
    {
        assert!(!is_seven_bit(text.as_bytes()), "{text:?}");
    }
}

/// Lines of the kind that hurt.
fn nasty_body() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "[ -~\\t]{0,100}",
        "From [a-z]{0,5}",
        "[a-z]{990,1010}",
        "[a-z\u{fc}\u{20ac}]{0,90}",
        "[a-z]{0,5} ",
        "\\.{0,2}",
        "[\u{1}-\u{1f}]{0,3}",
    ];
    prop::collection::vec(line, 0..10).prop_map(|lines| lines.join("\r\n"))
}

proptest! {
    #[test]
    fn a_leaf_decodes_to_the_same(body in nasty_body(), kind in "(text/plain|image/png)") {
        let found = canonical(&format!("Content-Type: {kind}\r\n"), &body);
        prop_assert!(found.seven_bit);
        let bytes = Bytes::from(found.to_vec());
        prop_assert!(is_seven_bit(&bytes));
        prop_assert_eq!(decode_body(&Entity::parse(bytes).unwrap()).unwrap(), body);
    }

    #[test]
    fn a_multipart_keeps_its_leaves(bodies in prop::collection::vec(nasty_body(), 1..4)) {
        let mut whole = String::new();
        for body in &bodies {
            whole.push_str(&format!("--=_b\r\nContent-Type: text/plain\r\n\r\n{body}\r\n"));
        }
        whole.push_str("--=_b--\r\n");
        let found = canonical("Content-Type: multipart/mixed; boundary=\"=_b\"\r\n", &whole);
        prop_assert!(found.seven_bit && is_seven_bit(&found.to_vec()));
        let root = Entity::parse(Bytes::from(found.to_vec())).unwrap();
        let split = Multipart::split(&root.body, "=_b").unwrap();
        prop_assert_eq!(split.parts.len(), bodies.len());
        for (part, body) in split.parts.into_iter().zip(bodies) {
            prop_assert_eq!(decode_body(&Entity::parse(part).unwrap()).unwrap(), body);
        }
    }

    #[test]
    fn nothing_panics(fields: Vec<u8>, body: Vec<u8>) {
        let _ = canonical_for_signing(&fields, &Bytes::from(body));
    }
}

#[test]
fn raw_names_of_attachments_become_ascii() {
    let found = text("Content-Type: image/png; name=\"\u{fc}.png\"\r\n", "x");
    assert_eq!(found, "Content-Type: image/png;\r\n\tname*=utf-8''%C3%BC.png\r\n\r\nx");
    let left = canonical("Content-Type: message/rfc822\r\n", "From: \u{fc} <a@b>\r\n\r\nx");
    assert!(!left.seven_bit, "a phrase that is not understood stays");
}
