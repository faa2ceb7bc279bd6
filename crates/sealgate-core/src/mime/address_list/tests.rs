//! Lists that are read exactly, and lists that are refused.

use super::*;

fn parsed(text: &str) -> Result<Vec<String>, MimeError> {
    parse(text.as_bytes()).map(|found| found.iter().map(ToString::to_string).collect())
}

#[test]
fn forms_of_rfc_5322_are_read_exactly() {
    for (text, wanted) in [
        (" a@b", vec!["a@b"]),
        ("Alice <a@b>", vec!["a@b"]),
        ("\"Smith, Alice\" <a@b>, c@d", vec!["a@b", "c@d"]),
        ("(c) Alice (x \\) (y)) <a@b> (z)", vec!["a@b"]),
        ("=?utf-8?q?x=40y.example?= <a@b>", vec!["a@b"]),
        ("a@B <A@b>", vec!["A@b"]),
        ("@lice <a@b>", vec!["a@b"]),
        ("\"x@y\" <a@b>", vec!["a@b"]),
        ("\"<x@y>\" <a@b>", vec!["a@b"]),
        ("Team: a@b, C <c@d>;", vec!["a@b", "c@d"]),
        ("Nobody:;", vec![]),
        ("Team:a@b;, c@d", vec!["a@b", "c@d"]),
        (",a@b,,c@d,", vec!["a@b", "c@d"]),
        ("Alice\r\n\t<a@b>", vec!["a@b"]),
        ("\"a\"@b", vec!["a@b"]),
        ("\"a b\"@c", vec!["\"a b\"@c"]),
        ("a@[127.0.0.1]", vec!["a@[127.0.0.1]"]),
        ("J\u{f6}rg <j\u{f6}rg@b>", vec!["j\u{f6}rg@b"]),
        ("< a@b (x) >", vec!["a@b"]),
        ("", vec![]),
    ] {
        assert_eq!(parsed(text).unwrap(), wanted, "{text}");
    }
}

#[test]
fn what_is_odd_is_refused_and_never_guessed() {
    for text in [
        "a@b c@d",
        "a @b",
        "a@ b",
        "a(x)@b",
        "a@(x)b",
        "<a@b> c",
        "x@y <a@b>",
        "x @ y <a@b>",
        "\"Alice\" x(c)@y <a@b>",
        "Alice x@y <a@b>",
        "<a@b><c@d>",
        "<@x:a@b>",
        "<a@b",
        "a@b>",
        "Alice",
        "Alice <>",
        "<a@b c@d>",
        "<a@b, c@d>",
        "\"a@b",
        "(a@b",
        "a@b;",
        "g: h: a@b;;",
        "g: a@b",
        "=?utf-8?q?a?=@b",
        "<=?utf-8?q?a=40b?=>",
        "a@b\0",
        "a\u{1}@b",
        "a@b\n<c@d>",
        "a\\@b@c",
        "<a@b>: c@d;",
        "a@b@c",
        "a@b <c@d> <e@f>",
        "\"a@b\" c@d e@f",
    ] {
        assert!(parsed(text).is_err(), "{text:?} gives {:?}", parsed(text));
    }
    assert!(parse(b"\xff\xfe@b").is_err());
    assert!(parse(b"\xff\xfe <a@b>").is_ok(), "a phrase in another character set");
}

#[test]
fn a_list_is_bounded() {
    let list = |count: usize| vec!["a@b"; count].join(",");
    assert_eq!(parsed(&list(ADDRESSES_MAX)).unwrap().len(), ADDRESSES_MAX);
    assert!(matches!(parsed(&list(ADDRESSES_MAX + 1)), Err(MimeError::OverLimit(_))));
    let mut found = Vec::new();
    collect(list(ADDRESSES_MAX + 1).as_bytes(), &mut found);
    assert_eq!(found.len(), ADDRESSES_MAX);
}
