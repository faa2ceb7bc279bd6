//! Fields byte for byte, and the limits.

use super::*;

fn header(text: &str) -> Header {
    Header::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

#[test]
fn fields_keep_their_exact_bytes() {
    let text = "Subject: a\r\n b\r\nfrom : x@y\r\nno field\r\nX:\r\n\r\n";
    let header = header(text);
    let raw: Vec<&[u8]> = header.fields().map(|field| field.raw()).collect();
    assert_eq!(raw, [&b"Subject: a\r\n b\r\n"[..], b"from : x@y\r\n", b"no field\r\n", b"X:\r\n"]);
    let names: Vec<&str> = header.fields().map(|field| field.name()).collect();
    assert_eq!(names, ["Subject", "from", "", "X"]);
    assert!(header.fields().nth(2).unwrap().is_malformed());
    assert_eq!(header.first("SUBJECT").unwrap().value_unfolded(), "a b");
    assert_eq!(header.first("From").unwrap().value(), b" x@y");
    assert_eq!(header.without(|_| false), text.as_bytes());
    assert_eq!(header.without(|f| f.is("subject")), b"from : x@y\r\nno field\r\nX:\r\n\r\n");
}

#[test]
fn a_section_ends_at_the_first_empty_line() {
    assert_eq!(header("A: b\r\n\r\nC: d\r\n").bytes(), "A: b\r\n\r\n");
    assert_eq!(header("\r\nA: b\r\n").fields().count(), 0);
    assert_eq!(header("A: b\r\n \r\nC: d").fields().count(), 2);
    assert_eq!(header("").fields().count(), 0);
}

#[test]
fn a_bare_line_feed_ends_no_field() {
    let header = header("Subject: a\nFrom: evil@x\r\n\r\n");
    assert_eq!(header.count("From"), 0);
    assert!(!header.is_printable());
}

#[test]
fn duplicates_are_found_in_every_spelling() {
    for name in SINGLE_FIELDS {
        let text = format!("{name}: a\r\n{} \t: b\r\n\r\n", name.to_ascii_uppercase());
        assert_eq!(header(&text).duplicates(), Some(name));
    }
    assert_eq!(header("From: a\r\nTo: b\r\nTo: c\r\nX-From: d\r\n\r\n").duplicates(), None);
}

#[test]
fn two_fields_of_a_kind_are_never_chosen_between() {
    let twice = header(
        "From: a@b\r\nFrom: c@d\r\nContent-Type: text/plain\r\ncontent-type: text/html\r\n\
         Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\n",
    );
    assert!(matches!(twice.from_mailboxes(), Err(MimeError::Ambiguous(_))));
    assert!(matches!(twice.content_type(), Err(MimeError::Ambiguous(_))));
    assert_eq!(twice.transfer_encoding(), TransferEncoding::Unknown);
}

#[test]
fn limits_hold_at_the_limit_and_break_one_beyond() {
    let field = |bytes: usize| format!("X: {}\r\n", "a".repeat(bytes - 5));
    let parse = |text: String| Header::parse(Bytes::from(text));
    assert!(parse(field(FIELD_BYTES_MAX)).is_ok());
    assert_eq!(
        parse(field(FIELD_BYTES_MAX + 1)).unwrap_err(),
        MimeError::OverLimit("a header field")
    );
    assert!(parse("X: y\r\n".repeat(FIELDS_MAX)).is_ok());
    assert!(matches!(parse("X: y\r\n".repeat(FIELDS_MAX + 1)), Err(MimeError::OverLimit(_))));
    let section = |bytes: usize| field(50_000).repeat(5) + &field(bytes - 250_000 - 2) + "\r\n";
    assert!(parse(section(HEADER_SECTION_BYTES_MAX)).is_ok());
    assert_eq!(
        parse(section(HEADER_SECTION_BYTES_MAX + 1)).unwrap_err(),
        MimeError::OverLimit("the header section")
    );
}

#[test]
fn addressees_are_those_of_to_and_cc() {
    let header =
        header("To: A <a@x>, b@y\r\nCc: g: c@z;\r\nBcc: d@w\r\nto: ,, nonsense, e@v\r\n\r\n");
    let found: Vec<String> = header.addressees().iter().map(ToString::to_string).collect();
    assert_eq!(found, ["a@x", "b@y", "c@z", "e@v"]);
}

#[test]
fn printable_means_printable() {
    assert!(header("A: b\r\n\tc\r\nB: \u{fc}\r\n\r\n").is_printable());
    for text in
        ["A: \0\r\n\r\n", "A\r\n\r\n", "A: \u{7f}\r\n\r\n", "A: b\rc\r\n\r\n", " A: b\r\n\r\n"]
    {
        assert!(!header(text).is_printable(), "{text:?}");
    }
    assert!(!Header::parse(Bytes::from_static(b"A: \xff\r\n\r\n")).unwrap().is_printable());
}

/// A decoder that looks for the end of each word, in vain, reads the whole field each time.
#[test]
fn encoded_words_are_bounded_where_they_are_decoded() {
    let field = |name: &str, count: usize| {
        format!("{name}: (a\r\n {}\r\n x)\r\n\r\n", "=?ab?Q?x".repeat(count))
    };
    let is_within = |text: String| Header::parse(Bytes::from(text)).is_ok();
    assert!(is_within(field("From", 250)));
    assert!(!is_within(field("from", 260)));
    let twice = [field("From", 250).trim_end(), field("From", 250).as_str()].join("\r\n");
    assert!(!is_within(twice));
    // Where the author is not at stake nothing is refused.
    assert!(is_within(field("Content-Type", 8_000)));
}
