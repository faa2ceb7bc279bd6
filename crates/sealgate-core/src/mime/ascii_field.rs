//! Header fields of parts in ASCII and in short lines (RFC 2047, RFC 2231), for mail that must pass every relay.
//!
//! In: a field with raw 8-bit text or an over-long line. Out: the same field in ASCII, or `None` where that cannot be said
//! without knowing more (addresses in quoted strings, doubtful parameters). Names and values stay the same for a reader;
//! comments and folds do not.

use std::borrow::Cow;

use super::content_type::{ContentType, Parameter};
use super::header::Field;
use super::structured::remove_folds;
use super::{LINE_BYTES_MAX, is_seven_bit};

/// The field, rewritten, with its CRLF.
pub(super) fn rewritten(field: &Field<'_>) -> Option<Vec<u8>> {
    let name = field.name();
    let value = if field.is("Content-Type") {
        let found = ContentType::parse(field.value()).ok()?;
        with_parameters(&format!("{}/{}", found.kind, found.subtype), &found)?
    } else if field.is("Content-Disposition") {
        let found = ContentType::parse_disposition(field.value()).ok()?;
        with_parameters(&found.kind, &found)?
    } else if UNSTRUCTURED.into_iter().any(|known| field.is(known)) {
        // Encoded words in encoded words would be shown as they are.
        if memchr::memmem::find(field.value(), b"=?").is_some() {
            return None;
        }
        encoded_words(&text_of(&remove_folds(field.value())))
    } else {
        return None;
    };
    let line = format!("{name}: {value}\r\n").into_bytes();
    is_seven_bit(&line).then_some(line)
}

/// A parameter a line. None may become two, or another one: whoever reads the field anew must see what we saw.
fn with_parameters(start: &str, found: &ContentType) -> Option<String> {
    let parameters = found.is_regular().then(|| found.parameters())?;
    let mut text = String::new();
    for parameter in parameters {
        text.push_str(";\r\n\t");
        text.push_str(&parameter_text(parameter)?);
    }
    let again = ContentType::parse(format!("a/b{text}").as_bytes()).ok()?;
    let is_same = |(new, old): (&Parameter, &Parameter)| {
        new == old || new.name.strip_suffix('*') == Some(old.name.as_str())
    };
    let are_same = again.is_regular()
        && again.parameters().len() == parameters.len()
        && again.parameters().iter().zip(parameters).all(is_same);
    are_same.then(|| format!("{start}{text}"))
}

/// `name=value`, quoted, or in the form of RFC 2231 §4 where it is not ASCII.
fn parameter_text(parameter: &Parameter) -> Option<String> {
    let (name, value) = (&parameter.name, &parameter.value);
    let text = match std::str::from_utf8(value) {
        Ok(text) if text.is_ascii() => {
            // In quotes the value of an RFC 2231 parameter would not be decoded, without them not everything may stand in it.
            if name.ends_with('*') {
                return value.iter().copied().all(is_extended).then(|| format!("{name}={text}"));
            }
            let mut quoted = format!("{name}=\"");
            for c in text.chars() {
                if c == '"' || c == '\\' {
                    quoted.push('\\');
                }
                quoted.push(c);
            }
            quoted.push('"');
            quoted
        }
        _ if name.contains('*') => return None,
        known => {
            let charset = if known.is_ok() { "utf-8" } else { "iso-8859-1" };
            format!("{name}*={charset}''{}", percent_encoded(value))
        }
    };
    (text.len() < LINE_BYTES_MAX).then_some(text)
}

/// RFC 2231 §7: what may stand in an extended value, its delimiters and escapes too.
fn is_extended(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~'%".contains(&byte)
}

/// RFC 2231 §7: all but letters, digits and a few signs.
fn percent_encoded(value: &[u8]) -> String {
    let mut out = String::with_capacity(value.len().saturating_mul(3));
    for &byte in value {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// What is not UTF-8 in a header is almost always of this family (ISO 8859-1), and every octet has a meaning in it.
fn text_of(value: &[u8]) -> Cow<'_, str> {
    let value = value.trim_ascii();
    std::str::from_utf8(value)
        .map_or_else(|_| value.iter().copied().map(char::from).collect(), Cow::Borrowed)
}

/// The whole text in encoded words of at most 75 characters, a line each (RFC 2047 §2, §5).
fn encoded_words(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut chunk = String::new();
    for c in text.chars() {
        if chunk.len().saturating_add(c.len_utf8()) > ENCODED_WORD_BYTES {
            words.push(std::mem::take(&mut chunk));
        }
        chunk.push(c);
    }
    words.push(chunk);
    let encoded = words.iter().map(|word| {
        format!("=?utf-8?B?{}?=", base64_simd::STANDARD.encode_to_string(word.as_bytes()))
    });
    encoded.collect::<Vec<_>>().join("\r\n ")
}

/// What 63 characters of base64 can hold: 75 less the twelve of `=?utf-8?B?` and `?=`.
const ENCODED_WORD_BYTES: usize = 45;
/// Fields of free text (RFC 5322 §3.6.5, RFC 2045 §8).
const UNSTRUCTURED: [&str; 3] = ["Comments", "Content-Description", "Subject"];

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::Header;
    use super::*;

    fn rewrite(text: &[u8]) -> Option<String> {
        let header = Header::parse(Bytes::copy_from_slice(text)).unwrap();
        let field = header.fields().next().unwrap();
        rewritten(&field).map(|line| String::from_utf8(line).unwrap())
    }

    #[test]
    fn parameters_take_the_form_of_rfc_2231() {
        assert_eq!(
            rewrite(
                "Content-Disposition: attachment; filename=\"Gr\u{fc}\u{df}e 1.pdf\"\r\n"
                    .as_bytes()
            )
            .unwrap(),
            "Content-Disposition: attachment;\r\n\tfilename*=utf-8''Gr%C3%BC%C3%9Fe%201.pdf\r\n"
        );
        let latin =
            rewrite(b"Content-Type: Text/Plain; charset=us-ascii (c); name=\xfc\r\n").unwrap();
        assert_eq!(
            latin,
            "Content-Type: text/plain;\r\n\tcharset=\"us-ascii\";\r\n\tname*=iso-8859-1''%FC\r\n"
        );
        let header = Header::parse(Bytes::from(latin)).unwrap();
        let read = header.content_type().unwrap().unwrap();
        assert_eq!(read.parameter("charset").unwrap(), "us-ascii");
    }

    #[test]
    fn what_was_encoded_stays_so() {
        let text = "Content-Type: a/b; x*=utf-8''%C3%A4; y=\"\\\"\"; z=\u{e4}\r\n";
        assert_eq!(
            rewrite(text.as_bytes()).unwrap(),
            "Content-Type: a/b;\r\n\tx*=utf-8''%C3%A4;\r\n\ty=\"\\\"\";\r\n\tz*=utf-8''%C3%A4\r\n"
        );
    }

    #[test]
    fn free_text_becomes_encoded_words() {
        let long = rewrite(format!("Subject: {}\r\n", "\u{e4}".repeat(50)).as_bytes()).unwrap();
        assert!(long.lines().all(|line| line.len() <= 76 + "Subject:".len()), "{long}");
        assert_eq!(
            rewrite("Content-Description: \u{e4}\r\n".as_bytes()).unwrap(),
            "Content-Description: =?utf-8?B?w6Q=?=\r\n"
        );
        assert_eq!(
            rewrite(b"Subject: Gr\xfc\xdfe\r\n").unwrap(),
            rewrite("Subject: Gr\u{fc}\u{df}e\r\n".as_bytes()).unwrap()
        );
    }

    #[test]
    fn what_cannot_be_said_surely_is_not_said() {
        for text in [
            "From: \u{e4} <a@b>\r\n",
            "Content-Type: text/plain; name=\u{e4} x\r\n",
            "Content-Type: text\u{e4}\r\n",
            "Content-Type: a/b; x*0=\u{e4}\r\n",
            "X-\u{e4}: y\r\n",
            "Content-Type: multipart/signed; x*=\"a; boundary=evil\"; boundary=good\r\n",
            "Content-Disposition: attachment; filename*=\"x; filename=evil.exe\"\r\n",
            "Content-Type: a/b; x*=\"(\"\r\n",
            "Content-Description: =?utf-8?Q?=C3=A4?= \u{e4}\r\n",
        ] {
            assert_eq!(rewrite(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        /// REQUIREMENTS C14: nothing in a value can end the field or begin another one.
        #[test]
        fn no_input_makes_a_second_field(
            name in "(Subject|Content-Type|Content-Disposition|Content-Description)",
            start in "(a/b|a; name=|a/b; x=\"|a/b; x\\*=\"|a/b; boundary=y; |)",
            value: Vec<u8>,
        ) {
            let text = [name.as_bytes(), b": ", start.as_bytes(), &value].concat();
            let header = Header::parse(Bytes::from(text)).unwrap();
            if let Some(field) = header.fields().next()
                && let Some(line) = rewritten(&field)
            {
                let again = Header::parse(Bytes::from(line.clone())).unwrap();
                prop_assert_eq!(again.fields().count(), 1);
                prop_assert_eq!(again.bytes().len(), line.len());
                prop_assert!(again.is_printable() && again.count(&name) == 1);
                let read = |header: &Header| {
                    let found = header.content_type().ok().flatten()?;
                    let boundary = found.boundary().ok().map(|boundary| boundary.into_owned());
                    Some((found.kind, found.subtype, boundary))
                };
                prop_assert_eq!(read(&again), read(&header));
            }
        }
    }
}
