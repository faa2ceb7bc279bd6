//! What comes out survives every relay.

use proptest::prelude::*;

use super::super::is_seven_bit;
use super::*;

fn quoted(text: &[u8]) -> String {
    let mut out = Vec::new();
    quoted_printable(text, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn base64_is_cut_at_76_characters() {
    let mut out = Vec::new();
    base64(&[0; 58], &mut out);
    assert_eq!(out, format!("{}\r\nAA==\r\n", "A".repeat(76)).as_bytes());
    out.clear();
    base64(&[0; 57 * 256 + 1], &mut out);
    assert!(out.split(|&b| b == b'\n').all(|line| line.len() <= 77));
    assert_eq!(out.len(), base64_len(57 * 256 + 1));
}

#[test]
fn base64_in_place_is_the_same_text() {
    let content: Vec<u8> = (0..=u8::MAX).cycle().take(57 * 256 * 3 + 1000).collect();
    let lengths = [0, 1, 2, 3, 56, 57, 58, 14_591, 14_592, 14_593, 29_184, 29_185, content.len()];
    for (length, head) in lengths.into_iter().flat_map(|length| [(length, ""), (length, "head\n")])
    {
        let mut text = head.as_bytes().to_vec();
        base64(&content[..length], &mut text);
        let in_place = base64_in_place(head.as_bytes(), content[..length].to_vec());
        assert!(in_place == text, "{length} octets after {head:?}");
    }
}

#[test]
fn what_relays_touch_is_quoted() {
    assert_eq!(quoted(b"From me"), "=46rom me");
    assert_eq!(quoted(b"x\r\nFrom me\r\nFrom: me"), "x\r\n=46rom me\r\nFrom: me");
    assert_eq!(quoted(b"- \r\na\t"), "-=20\r\na=09");
    assert_eq!(quoted(b".\r\n..x"), "=2E\r\n=2E.x");
    assert_eq!(quoted(b"a=b\xe4\0\r"), "a=3Db=E4=00=0D");
}

/// What was written `=2D-q` inside of a multipart whose boundary is "q" must not become its delimiter.
#[test]
fn no_line_becomes_a_delimiter() {
    assert_eq!(quoted(b"--q\r\nx--q\r\n-q"), "=2D-q\r\nx--q\r\n-q");
    assert_eq!(quoted(b"-- \r\n---"), "=2D-=20\r\n=2D--");
    let text = format!("{}--q", "x".repeat(75));
    assert_eq!(quoted(text.as_bytes()), format!("{}=\r\n=2D-q", "x".repeat(75)));
}

#[test]
fn a_soft_break_may_make_a_line_begin_with_from() {
    let text = format!("{}From here", "x".repeat(75));
    assert_eq!(quoted(text.as_bytes()), format!("{}=\r\n=46rom here", "x".repeat(75)));
}

proptest! {
    #[test]
    fn every_output_is_safe(content: Vec<u8>) {
        let mut out = Vec::new();
        quoted_printable(&content, &mut out);
        prop_assert!(is_seven_bit(&out));
        prop_assert!(out.split(|&b| b == b'\n').all(|line| line.trim_ascii_end().len() <= 76));
        out.clear();
        base64(&content, &mut out);
        prop_assert!(is_seven_bit(&out));
    }
}
