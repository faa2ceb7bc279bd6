//! Transfer encodings undone, strictly and as mail readers do.

use proptest::prelude::*;

use super::super::encode;
use super::*;

fn entity(encoding: &str, body: &[u8]) -> Entity {
    let mut text = format!("Content-Transfer-Encoding: {encoding}\r\n\r\n").into_bytes();
    text.extend_from_slice(body);
    Entity::parse(Bytes::from(text)).unwrap()
}

#[test]
fn identity_is_the_same_buffer() {
    let entity = entity("8bit", b"x = y\xff");
    let decoded = decode_body(&entity).unwrap();
    assert_eq!(decoded.as_ptr(), entity.body.as_ptr());
}

#[test]
fn base64_takes_white_space_and_nothing_else() {
    for good in
        ["YWJj\r\nZGVm\r\n", " YW Jj\tZG\r\nVm", "YWJjZGVm", "\r\n\r\nYWJj\r\n\r\nZGVm\r\n\r\n"]
    {
        assert_eq!(
            decode_body(&entity("BASE64 (x)", good.as_bytes())).unwrap(),
            "abcdef",
            "{good:?}"
        );
    }
    assert_eq!(decode_body(&entity("base64", b"YQ==\r\n")).unwrap(), "a");
    assert_eq!(decode_body(&entity("base64", b"")).unwrap(), "");
    for bad in ["YWJj-", "YQ", "YQ==YQ==", "YQ=", "YWJj\r\n-- \r\nfooter", "YWJj\0", "=", "YR=="] {
        assert!(decode_body(&entity("base64", bad.as_bytes())).is_err(), "{bad:?}");
    }
    assert!(decode_body(&entity("x-uuencode", b"")).is_err());
}

#[test]
fn readers_base64_skips_what_is_none() {
    assert_eq!(lenient(b"YW!Jj\r\n\xff", TransferEncoding::Base64).unwrap(), b"abc");
    assert_eq!(lenient(b"YQ==\r\nfooter", TransferEncoding::Base64).unwrap(), b"a");
}

#[test]
fn quoted_printable_follows_rfc_2045() {
    for (text, wanted) in [
        ("a=3D=3d b", "a== b"),
        ("soft=\r\nbreak", "softbreak"),
        ("soft= \t\r\nbreak", "softbreak"),
        ("gone \t\r\nkept=20\r\n", "gone\r\nkept \r\n"),
        ("=zz=4", "=zz=4"),
        ("end=", "end"),
        ("\r\n\r\n", "\r\n\r\n"),
    ] {
        assert_eq!(
            decode_body(&entity("quoted-printable", text.as_bytes())).unwrap(),
            wanted,
            "{text:?}"
        );
    }
}

proptest! {
    #[test]
    fn base64_comes_back(content: Vec<u8>) {
        let mut text = Vec::new();
        encode::base64(&content, &mut text);
        prop_assert_eq!(text.len(), encode::base64_len(content.len()));
        prop_assert_eq!(decode_body(&entity("base64", &text)).unwrap(), content);
    }

    #[test]
    fn quoted_text_comes_back(lines in prop::collection::vec("[ -~\\t\u{e4}\u{20ac}]{0,200}", 0..8)) {
        let content = lines.join("\r\n");
        let mut text = Vec::new();
        encode::quoted_printable(content.as_bytes(), &mut text);
        prop_assert_eq!(decode_body(&entity("quoted-printable", &text)).unwrap(), content);
    }

    #[test]
    fn nothing_panics(body: Vec<u8>) {
        for encoding in ["base64", "quoted-printable", "7bit", "x"] {
            let entity = entity(encoding, &body);
            let _ = decode_body(&entity);
            let _ = lenient(&entity.body, entity.header.transfer_encoding());
        }
    }
}
