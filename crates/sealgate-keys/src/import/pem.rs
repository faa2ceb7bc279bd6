//! PEM (RFC 7468), lax: text between the blocks is skipped, as `openssl` and mail clients write it.

use std::fmt;

use zeroize::Zeroizing;

/// One block.
pub(crate) struct Block {
    pub(crate) label: String,
    /// RFC 1421 headers (`Proc-Type: 4,ENCRYPTED`): an old encrypted key.
    pub(crate) has_headers: bool,
    pub(crate) der: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({})", self.label)
    }
}

/// All whole blocks, at most [`BLOCKS_MAX`]; a block that is no base64 is left out.
pub(crate) fn blocks(bytes: &[u8]) -> Vec<Block> {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let label = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        let Some(label) = label else { continue };
        let end = format!("-----END {label}-----");
        let mut digits = Zeroizing::new(String::with_capacity(4096));
        let mut has_headers = false;
        let mut ended = false;
        for line in lines.by_ref() {
            if line == end {
                ended = true;
                break;
            }
            if line.contains(':') {
                has_headers = true;
            } else {
                digits.push_str(line);
            }
        }
        if let Some(der) = decode(&digits).filter(|_| ended) {
            found.push(Block { label: label.to_owned(), has_headers, der });
        }
        if found.len() == BLOCKS_MAX {
            break;
        }
    }
    found
}

fn decode(digits: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(vec![0_u8; digits.len()]);
    let written = base64_simd::STANDARD
        .decode(digits.as_bytes(), base64_simd::Out::from_slice(&mut buffer))
        .ok()?
        .len();
    buffer.truncate(written);
    Some(buffer)
}

const BLOCKS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_text() {
        let text = b"Bag Attributes\n  x: y\n-----BEGIN A-----\r\nAAEC\r\n-----END A-----\n\
            junk\n-----BEGIN B C-----\nProc-Type: 4,ENCRYPTED\n\nAA==\n-----END B C-----\n\
            -----BEGIN D-----\n!!!\n-----END D-----\n-----BEGIN E-----\nAAEC\n";
        let found = blocks(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].label.as_str(), found[0].der.as_slice()), ("A", &[0, 1, 2][..]));
        assert!(!found[0].has_headers);
        assert!(found[1].has_headers);
    }
}
