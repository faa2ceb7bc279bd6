//! Media types and their parameters, good and doubtful.

use super::*;

fn read(text: &str) -> ContentType {
    ContentType::parse(text.as_bytes()).unwrap()
}

#[test]
fn types_and_parameters_are_read() {
    let found = read(
        " Multipart/SIGNED (c); Protocol=\"application/pkcs7-signature\";\r\n\tmicalg=sha-256;boundary=\"a \\\"b\";",
    );
    assert!(found.is("multipart", "signed") && found.is_regular());
    assert_eq!(found.parameter("protocol").unwrap(), "application/pkcs7-signature");
    assert_eq!(found.parameter("micalg").unwrap(), "sha-256");
    assert_eq!(found.boundary().unwrap(), "a \"b");
    assert_eq!(found.parameter("charset"), None);
}

#[test]
fn parameters_of_rfc_2231_are_put_together() {
    let found = read("a/b; x*=utf-8''%c3%a4%; y*1*=%42c; y*0*=us-ascii'en'a; z*0=\"1\"; z*1=2");
    assert_eq!(found.parameter("x").unwrap(), "\u{e4}%");
    assert_eq!(found.parameter("y").unwrap(), "aBc");
    assert_eq!(found.parameter("z").unwrap(), "12");
}

#[test]
fn a_parameter_with_two_readings_has_none() {
    for text in [
        "a/b; x=1; x=2",
        "a/b; x=1; X=1",
        "a/b; x=1; x*=utf-8''2",
        "a/b; x*0=1; x*0=2",
        "a/b; x*0=1; x*2=2",
        "a/b; x=1; x*0=2",
    ] {
        assert_eq!(read(text).parameter("x"), None, "{text}");
    }
}

#[test]
fn doubtful_syntax_is_marked() {
    for text in [
        "a/b; x=a b",
        "a/b; x=\"a\"b",
        "a/b; x",
        "a/b; x=",
        "a/b; x=\"a",
        "a/b c; x=y",
        "a/b; =y",
        "a/b; x=a\"; y=b\"",
        "a/b (; x=y",
        "(c)a/b; x=y",
        "a /b; x=y",
        "a/(c)b; x=y",
    ] {
        assert!(!read(text).is_regular(), "{text}");
    }
    assert!(read("a/b; x=----=_Part_1:2/3?4; y=z ;").is_regular());
    assert!(read(" \r\n\ta/b (c) ; x=y").is_regular());
    assert_eq!(read("a/b; x=----=_Part_1:2/3?4").parameter("x").unwrap(), "----=_Part_1:2/3?4");
}

#[test]
fn what_is_no_type_is_refused() {
    for text in ["", "text", "/plain", "text/", "a/b\0", "\"a\"/b", "text;plain", "(a/b"] {
        assert!(ContentType::parse(text.as_bytes()).is_err(), "{text:?}");
    }
}

#[test]
fn boundaries_are_those_of_rfc_2046() {
    let of = |text: &str| read(&format!("multipart/mixed; boundary=\"{text}\"")).boundary().is_ok();
    assert!(of(&"b".repeat(BOUNDARY_BYTES_MAX)));
    assert!(!of(&"b".repeat(BOUNDARY_BYTES_MAX + 1)));
    assert!(!of("") && !of("b ") && !of("b\u{e4}"));
    assert!(read("multipart/mixed").boundary().is_err());
}

#[test]
fn parameters_are_bounded() {
    let with =
        |count: usize| ContentType::parse(format!("a/b{}", "; x=y".repeat(count)).as_bytes());
    assert!(with(PARAMETERS_MAX).is_ok());
    assert!(matches!(with(PARAMETERS_MAX + 1), Err(MimeError::OverLimit(_))));
}

#[test]
fn the_first_token_of_a_simple_field() {
    assert_eq!(first_token(b" (x) Base64 (y) ").as_deref(), Some("base64"));
    assert_eq!(first_token(b"quoted-printable;").as_deref(), Some("quoted-printable"));
    assert_eq!(first_token(b"7bit 8bit"), None);
    assert_eq!(first_token(b""), None);
}
