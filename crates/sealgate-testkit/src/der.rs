//! A walker over BER and DER that finds values by where they stand, so that tests can flip a chosen byte.
//!
//! Reads well-formed input only: it is for messages that a test has just made.

use std::ops::Range;

/// One element, with its place in the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The identifier octet.
    pub tag: u8,
    /// Where its contents stand.
    pub contents: Range<usize>,
    /// Where the element ends, end-of-contents octets included.
    pub end: usize,
}

impl Element {
    /// The element at an offset.
    pub fn at(bytes: &[u8], offset: usize) -> Self {
        let tag = bytes[offset];
        assert_ne!(tag & 0x1f, 0x1f, "a tag of several octets at {offset}");
        let first = usize::from(bytes[offset + 1]);
        if first == 0x80 {
            let start = offset + 2;
            let mut at = start;
            while bytes[at..at + 2] != [0, 0] {
                at = Self::at(bytes, at).end;
            }
            return Self { tag, contents: start..at, end: at + 2 };
        }
        let (start, length) = if first < 0x80 {
            (offset + 2, first)
        } else {
            let count = first & 0x7f;
            let octets = &bytes[offset + 2..offset + 2 + count];
            let length = octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
            (offset + 2 + count, length)
        };
        Self { tag, contents: start..start + length, end: start + length }
    }

    /// Whether it has elements inside.
    pub fn is_constructed(&self) -> bool {
        self.tag & 0x20 != 0
    }

    /// The elements inside.
    pub fn children(&self, bytes: &[u8]) -> Vec<Self> {
        let mut children = Vec::new();
        let mut at = self.contents.start;
        while at < self.contents.end {
            let child = Self::at(bytes, at);
            at = child.end;
            children.push(child);
        }
        children
    }

    /// The element inside at this position.
    pub fn child(&self, bytes: &[u8], position: usize) -> Self {
        self.children(bytes).swap_remove(position)
    }

    /// The octets of a string: its own contents, or those of its first segment that has some.
    pub fn octets(&self, bytes: &[u8]) -> Range<usize> {
        if !self.is_constructed() {
            return self.contents.clone();
        }
        let segments = self.children(bytes);
        let first = segments.iter().find(|segment| !segment.contents.is_empty());
        first.expect("a string with octets").octets(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_definite_and_indefinite_lengths() {
        // SEQUENCE { [0] { OCTET STRING 61, OCTET STRING 6263 } indefinite, INTEGER 5 }
        let bytes =
            [0x30, 0x0e, 0xa0, 0x80, 0x04, 0x01, 0x61, 0x04, 0x02, 0x62, 0x63, 0, 0, 0x02, 0x01, 5];
        let whole = Element::at(&bytes, 0);
        assert_eq!(whole.end, bytes.len());
        let children = whole.children(&bytes);
        assert_eq!(children.iter().map(|child| child.tag).collect::<Vec<_>>(), [0xa0, 0x02]);
        assert_eq!(children[0].octets(&bytes), 6..7);
        assert_eq!(children[1].contents, 15..16);
    }
}
