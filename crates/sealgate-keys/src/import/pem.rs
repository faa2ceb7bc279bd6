//! PEM (RFC 7468), lax: text between the blocks is skipped, as `openssl` and mail clients write it, and so are byte order marks,
//! which editors put before the first line. A block that has begun must be whole: of a file that was cut, the rest would be
//! believed to be all.

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

/// Why a file is not read, in words that follow its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// No base64, or without its END line; with its label.
    Block(String),
    /// More than [`BLOCKS_MAX`].
    TooManyBlocks,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(label) => {
                write!(
                    f,
                    "the PEM block `{label}` is damaged or cut off: nothing of the file is used"
                )
            }
            Self::TooManyBlocks => write!(f, "more than {BLOCKS_MAX} PEM blocks: divide the file"),
        }
    }
}

/// All blocks.
///
/// # Errors
/// [`Damage`].
pub(crate) fn blocks(bytes: &[u8]) -> Result<Vec<Block>, Damage> {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Vec::new();
    let mut lines = text.lines().map(|line| line.trim_start_matches(BYTE_ORDER_MARK).trim());
    while let Some(line) = lines.next() {
        let Some(rest) = line.strip_prefix("-----BEGIN ") else { continue };
        let label = rest.trim_end_matches('-');
        let damaged = || Damage::Block(label.chars().take(LABEL_CHARS_MAX).collect());
        if found.len() >= BLOCKS_MAX {
            return Err(Damage::TooManyBlocks);
        }
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
        let der = decode(&digits).filter(|_| ended).ok_or_else(damaged)?;
        found.push(Block { label: label.to_owned(), has_headers, der });
    }
    Ok(found)
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

/// U+FEFF; where files were put together it stands before the first line of each.
const BYTE_ORDER_MARK: char = '\u{feff}';
const BLOCKS_MAX: usize = 1000;
/// Of a label in an error.
const LABEL_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_text() {
        let text = b"Bag Attributes\n  x: y\n-----BEGIN A-----\r\nAAEC\r\n-----END A-----\n\
            junk\n-----BEGIN B C-----\nProc-Type: 4,ENCRYPTED\n\nAA==\n-----END B C-----\n";
        let found = blocks(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].label.as_str(), found[0].der.as_slice()), ("A", &[0, 1, 2][..]));
        assert!(!found[0].has_headers);
        assert!(found[1].has_headers);
        assert!(blocks(b"no block at all\n").unwrap().is_empty());
    }

    #[test]
    fn a_block_that_is_not_whole_is_no_file() {
        let whole = "-----BEGIN A-----\nAAEC\n-----END A-----\n";
        for damaged in [
            "-----BEGIN D-----\n!!!\n-----END D-----\n",
            "-----BEGIN D-----\nAAEC\n",
            "-----BEGIN D-----\nAAEC\n-----END D---",
            "-----BEGIN D-----\nAAEC\n-----BEGIN A-----\nAAEC\n-----END A-----\n",
            "-----BEGIN D--",
        ] {
            let text = [whole, damaged].concat();
            assert_eq!(blocks(text.as_bytes()).unwrap_err(), Damage::Block("D".to_owned()));
        }
        let many = whole.repeat(BLOCKS_MAX);
        assert_eq!(blocks(many.as_bytes()).unwrap().len(), BLOCKS_MAX);
        let more = whole.repeat(BLOCKS_MAX + 1);
        assert_eq!(blocks(more.as_bytes()).unwrap_err(), Damage::TooManyBlocks);
    }
}
