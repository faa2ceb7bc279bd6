//! Transfer encodings (RFC 2045 §6.7, §6.8) in lines of 76 characters that survive every relay.
//!
//! In: content. Out: 7-bit lines with CRLF, no white space at a line's end, no line that begins with "From " (RFC 3156
//! §5), with a dot, or with "--" as the delimiter of a multipart does (RFC 2046 §5.1.1).

/// Appends `content` as base64; every line ends with CRLF. Encodes block by block, so that the unbroken text stays
/// in the processor's cache while it is cut into lines.
pub(super) fn base64(content: &[u8], out: &mut Vec<u8>) {
    out.reserve(base64_len(content.len()));
    let mut unbroken = Vec::with_capacity(BLOCK_BYTES / 3 * 4);
    for block in content.chunks(BLOCK_BYTES) {
        base64_block(block, &mut unbroken, out);
    }
}

fn base64_block(block: &[u8], unbroken: &mut Vec<u8>, out: &mut Vec<u8>) {
    unbroken.clear();
    base64_simd::STANDARD.encode_append(block, unbroken);
    for line in unbroken.chunks(LINE_CHARS) {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
}

/// What [`base64`] writes, in the content's own buffer, after a head: of a large message content and text would
/// otherwise be held both. The last block comes first, because its text goes where nothing is left to read.
pub(super) fn base64_in_place(head: &[u8], mut buffer: Vec<u8>) -> Vec<u8> {
    let content_len = buffer.len();
    buffer.resize(head.len().saturating_add(base64_len(content_len)), 0);
    let mut unbroken = Vec::with_capacity(BLOCK_BYTES / 3 * 4);
    let mut text = Vec::with_capacity(base64_len(BLOCK_BYTES));
    for block in (0..content_len.div_ceil(BLOCK_BYTES)).rev() {
        let from = block.saturating_mul(BLOCK_BYTES);
        let to = from.saturating_add(BLOCK_BYTES).min(content_len);
        text.clear();
        base64_block(buffer.get(from..to).unwrap_or_default(), &mut unbroken, &mut text);
        put(&text, &mut buffer, head.len().saturating_add(base64_len(from)));
    }
    put(head, &mut buffer, 0);
    buffer
}

/// Writes over what is there.
fn put(text: &[u8], buffer: &mut [u8], at: usize) {
    debug_assert!(at.saturating_add(text.len()) <= buffer.len(), "the buffer has this length");
    if let Some(place) = buffer.get_mut(at..at.saturating_add(text.len())) {
        place.copy_from_slice(text);
    }
}

/// The length that [`base64`] appends.
pub(super) fn base64_len(content_len: usize) -> usize {
    let text = content_len.div_ceil(3).saturating_mul(4);
    text.saturating_add(text.div_ceil(LINE_CHARS).saturating_mul(2))
}

/// Appends text as quoted-printable. CRLF stays a line break; a CR or LF alone is encoded.
pub(super) fn quoted_printable(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len().saturating_add(text.len() / 8));
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
        let (line, tail) = rest.split_at(at);
        quoted_line(line, out);
        out.extend_from_slice(b"\r\n");
        rest = tail.get(2..).unwrap_or_default();
    }
    quoted_line(rest, out);
}

fn quoted_line(line: &[u8], out: &mut Vec<u8>) {
    let mut column = 0_usize;
    let mut rest = line;
    while let Some((&byte, tail)) = rest.split_first() {
        let is_last = tail.is_empty();
        let plain = match byte {
            b'=' => false,
            b' ' | b'\t' => !is_last,
            b'F' if column == 0 => !rest.starts_with(b"From "),
            b'.' if column == 0 => false,
            b'-' if column == 0 => !rest.starts_with(b"--"),
            _ => byte.is_ascii_graphic(),
        };
        let width = if plain { 1 } else { 3 };
        // The last column is for the "=" of a soft line break.
        let limit = if is_last { LINE_CHARS } else { LINE_CHARS.saturating_sub(1) };
        if column.saturating_add(width) > limit {
            out.extend_from_slice(b"=\r\n");
            column = 0;
            // Its place in the line has changed what it needs.
            continue;
        }
        if plain {
            out.push(byte);
        } else {
            out.push(b'=');
            out.extend([byte >> 4, byte & 0xf].map(hex_digit));
        }
        column = column.saturating_add(width);
        rest = tail;
    }
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0'.wrapping_add(nibble) } else { b'A'.wrapping_add(nibble.wrapping_sub(10)) }
}

/// RFC 2045 §6.7 rule 5, §6.8.
const LINE_CHARS: usize = 76;
/// 256 lines of 57 bytes.
const BLOCK_BYTES: usize = 57 * 256;

#[cfg(test)]
mod tests;
