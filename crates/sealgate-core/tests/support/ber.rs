//! The BER that streaming software writes, made from DER: indefinite lengths and strings in
//! segments.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

/// Rewrites a ContentInfo; certificates, CRLs and signed attributes stay as they are.
pub fn streamed(der: &[u8], segment: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let rest = element(der, &mut Vec::new(), segment, &mut out, 0, false);
    assert!(rest.is_empty());
    out
}

fn element<'a>(
    der: &'a [u8],
    path: &mut Vec<u8>,
    segment: usize,
    out: &mut Vec<u8>,
    index: usize,
    verbatim: bool,
) -> &'a [u8] {
    let (tag, header, length) = header(der);
    let (whole, rest) = der.split_at(header + length);
    let body = &whole[header..];
    let is_content = tag == 0x80 && path.len() == 4 && index == 2;
    if verbatim {
        out.extend_from_slice(whole);
    } else if tag == 0x04 || is_content {
        out.extend([tag | 0x20, 0x80]);
        for piece in body.chunks(segment.max(1)) {
            out.push(0x04);
            // A length that is longer than it must be.
            out.push(0x88);
            out.extend((piece.len() as u64).to_be_bytes());
            out.extend_from_slice(piece);
        }
        out.extend([0, 0]);
    } else if tag & 0x20 != 0 {
        out.extend([tag, 0x80]);
        path.push(tag);
        let is_signed =
            matches!(path.as_slice(), [_, _, 0x30, 0xa0 | 0xa1] | [_, _, _, 0x31, 0x30, 0xa0]);
        let mut inside = body;
        let mut index = 0;
        while !inside.is_empty() {
            inside = element(inside, path, segment, out, index, is_signed);
            index += 1;
        }
        path.pop();
        out.extend([0, 0]);
    } else {
        out.extend_from_slice(whole);
    }
    rest
}

fn header(der: &[u8]) -> (u8, usize, usize) {
    let first = usize::from(der[1]);
    if first < 0x80 {
        return (der[0], 2, first);
    }
    let count = first & 0x7f;
    let length = der[2..2 + count].iter().fold(0, |sum, octet| sum * 256 + usize::from(*octet));
    (der[0], 2 + count, length)
}
