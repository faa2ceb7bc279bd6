//! Messages as bytes: header fields, dots, line ends, and the base64 of S/MIME parts.

/// Splits a message at its first empty line; the header section keeps its last line end.
pub fn split(message: &[u8]) -> (&[u8], &[u8]) {
    match find(message, b"\r\n\r\n") {
        Some(at) => (&message[..at + 2], &message[at + 4..]),
        None => match find(message, b"\n\n") {
            Some(at) => (&message[..at + 1], &message[at + 2..]),
            None => (message, &[]),
        },
    }
}

/// The body of a message.
pub fn body(message: &[u8]) -> &[u8] {
    split(message).1
}

/// The unfolded value of the first field of this name.
pub fn header(message: &[u8], name: &str) -> Option<String> {
    headers(message, name).into_iter().next()
}

/// The unfolded values of all fields of this name, from the top.
pub fn headers(message: &[u8], name: &str) -> Vec<String> {
    fields(message)
        .into_iter()
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

/// All fields, unfolded.
pub fn fields(message: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(split(message).0).replace("\r\n", "\n");
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }
    fields
}

/// A parameter of a structured field's value, `boundary` of a Content-Type, say.
pub fn parameter(value: &str, name: &str) -> Option<String> {
    value.split(';').skip(1).find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// The parts of a multipart body: the bytes between its delimiter lines, without the line end before a delimiter.
pub fn parts<'a>(body: &'a [u8], boundary: &str) -> Vec<&'a [u8]> {
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut start = None;
    let mut at = 0;
    while at < body.len() {
        let end = find(&body[at..], b"\n").map_or(body.len(), |offset| at + offset + 1);
        if body[at..end].starts_with(delimiter.as_bytes()) {
            if let Some(start) = start {
                let mut stop: usize = at;
                if stop > start && body[stop - 1] == b'\n' {
                    stop -= 1;
                }
                if stop > start && body[stop - 1] == b'\r' {
                    stop -= 1;
                }
                parts.push(&body[start..stop]);
            }
            start = Some(end);
            if body[at..end].starts_with(format!("{delimiter}--").as_bytes()) {
                break;
            }
        }
        at = end;
    }
    parts
}

/// The CMS of an `application/pkcs7-mime` or `-signature` entity with base64 as its encoding.
pub fn decoded_body(entity: &[u8]) -> Vec<u8> {
    decode_base64(body(entity))
}

/// The entity with another CMS in its body.
pub fn with_decoded_body(entity: &[u8], cms: &[u8]) -> Vec<u8> {
    let mut out = split(entity).0.to_vec();
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&encode_base64(cms));
    out
}

/// What an entity says, its transfer encoding (RFC 2045 §6) undone.
pub fn decoded_content(entity: &[u8]) -> Vec<u8> {
    let encoding = header(entity, "Content-Transfer-Encoding").unwrap_or_default();
    match encoding.to_ascii_lowercase().as_str() {
        "base64" => decode_base64(body(entity)),
        "quoted-printable" => decode_quoted_printable(body(entity)),
        _ => body(entity).to_vec(),
    }
}

/// The entity that a multipart/signed entity signs, byte for byte; the entity itself where it is none.
pub fn signed_part(entity: &[u8]) -> &[u8] {
    let content_type = header(entity, "Content-Type").unwrap_or_default();
    if !content_type.to_ascii_lowercase().starts_with("multipart/signed") {
        return entity;
    }
    let boundary = parameter(&content_type, "boundary").expect("a boundary");
    parts(body(entity), &boundary).first().expect("a signed part")
}

/// The signature of a multipart/signed entity.
pub fn signature_part(entity: &[u8]) -> Vec<u8> {
    let content_type = header(entity, "Content-Type").unwrap_or_default();
    let boundary = parameter(&content_type, "boundary").expect("multipart/signed");
    decoded_body(parts(body(entity), &boundary).get(1).expect("a signature part"))
}

/// A multipart/signed entity (RFC 8551 §3.5.3) of an entity and its detached signature, or an opaque one (§3.5.2)
/// where the signature holds what it signs.
pub fn signed_entity(entity: &[u8], cms: &[u8]) -> Vec<u8> {
    if crate::cms::is_opaque(cms) {
        return pkcs7_mime("signed-data", cms);
    }
    let mut out = b"Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\";\r\n \
                    micalg=sha-256; boundary=\"bed-boundary\"\r\n\r\n--bed-boundary\r\n"
        .to_vec();
    out.extend_from_slice(entity);
    out.extend_from_slice(
        b"\r\n--bed-boundary\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n\
          Content-Transfer-Encoding: base64\r\n\r\n",
    );
    out.extend_from_slice(&encode_base64(cms));
    out.extend_from_slice(b"--bed-boundary--\r\n");
    out
}

/// An application/pkcs7-mime entity (RFC 8551 §3.2.1).
pub fn pkcs7_mime(smime_type: &str, cms: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "Content-Type: application/pkcs7-mime; smime-type={smime_type}; name=smime.p7m\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n"
    )
    .into_bytes();
    out.extend_from_slice(&encode_base64(cms));
    out
}

/// A message: address fields before an entity.
pub fn message(from: &str, to: &str, subject: &str, entity: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "From: <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\n\
         Date: Mon, 23 Nov 2026 09:00:00 +0000\r\nMessage-ID: <{subject}.{from}>\r\n\
         MIME-Version: 1.0\r\n"
    )
    .into_bytes();
    out.extend_from_slice(entity);
    out
}

/// Quoted-printable (RFC 2045 §6.7) decoded.
fn decode_quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(b"=\r\n") {
            at += 3;
        } else if let Some(hex) = rest.strip_prefix(b"=").and_then(|rest| rest.get(..2)) {
            let hex = std::str::from_utf8(hex).unwrap();
            out.push(u8::from_str_radix(hex, 16).expect("two hexadecimal digits after ="));
            at += 3;
        } else {
            out.push(rest[0]);
            at += 1;
        }
    }
    out
}

/// Base64 with line ends taken out first.
pub fn decode_base64(text: &[u8]) -> Vec<u8> {
    let dense: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    base64_simd::STANDARD.decode_to_vec(&dense).expect("base64")
}

/// Base64 in lines of 76 with CRLF.
pub fn encode_base64(bytes: &[u8]) -> Vec<u8> {
    let dense = base64_simd::STANDARD.encode_to_string(bytes);
    let mut out = Vec::new();
    for line in dense.as_bytes().chunks(76) {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Every line end made CRLF, bare CR and bare LF alike.
pub fn with_crlf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 32);
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'\r' => {
                rest.next_if_eq(&b'\n');
                out.extend_from_slice(b"\r\n");
            }
            b'\n' => out.extend_from_slice(b"\r\n"),
            other => out.push(other),
        }
    }
    out
}

/// Dot-stuffed content with its final dot (RFC 5321 §4.5.2); a missing last line end is added.
pub fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 64);
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// Content without its stuffed dots; the final dot's line is not part of the argument.
pub fn unstuffed(content: &[u8]) -> Vec<u8> {
    content
        .split_inclusive(|byte| *byte == b'\n')
        .flat_map(|line| line.strip_prefix(b".").unwrap_or(line))
        .copied()
        .collect()
}

/// Where a needle stands first.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Whether a needle occurs.
pub fn contains(haystack: &[u8], needle: &str) -> bool {
    find(haystack, needle.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffing_and_unstuffing_are_inverse() {
        let content = b".\r\n..a\r\nb.\r\n.\r\n";
        let wire = stuffed(content);
        assert!(wire.starts_with(b"..\r\n...a\r\n"));
        assert_eq!(unstuffed(&wire[..wire.len() - 3]), content);
    }

    #[test]
    fn parts_end_before_the_line_end_of_their_delimiter() {
        let body = b"preamble\r\n--b\r\nX: 1\r\n\r\none\r\n\r\n--b\r\ntwo\r\n--b--\r\n";
        assert_eq!(parts(body, "b"), [&b"X: 1\r\n\r\none\r\n"[..], b"two"]);
    }

    #[test]
    fn fields_unfold() {
        let message = b"Content-Type: multipart/signed;\r\n boundary=\"x y\"; micalg=sha-256\r\nTo: a\r\n\r\n";
        let value = header(message, "content-type").unwrap();
        assert_eq!(parameter(&value, "boundary").as_deref(), Some("x y"));
        assert_eq!(header(message, "to").as_deref(), Some("a"));
    }
}
