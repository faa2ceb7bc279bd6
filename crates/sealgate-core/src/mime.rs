//! MIME (RFC 2045, 2046, 5322, 1847), byte-exact and bounded: split, header, canonical, write.
//!
//! In: messages and decrypted content as [`bytes::Bytes`] with CRLF line ends. Out: slices of the same buffer, or new
//! bytes where content must be encoded anew. Everything walks with an explicit stack, so depth costs no stack space,
//! and every size is bounded by a constant below (REQUIREMENTS K1, K2). Where a text can be read in two ways the
//! answer is an error: nobody acts on a guess.
//!
//! It knows no cryptography, decodes no character sets and repairs nothing that a signature covers.

use std::fmt;

mod address_list;
mod ascii_field;
mod canonical;
mod content_type;
mod decode;
mod encode;
mod entity;
mod header;
mod layer;
mod multipart;
mod reader;
mod structured;
pub mod write;

pub use canonical::{
    Canonical, canonical_for_signing, canonical_line_ends, is_seven_bit, is_transportable,
    transportable_field,
};
pub use content_type::ContentType;
pub use decode::decode_body;
pub use entity::{Entity, TransferEncoding, split_content_fields};
pub use header::{Field, Header};
pub use layer::{Cryptographic, Protection, SignedParts, cryptographic_layer, protection};
pub use multipart::Multipart;
pub use reader::{agrees_with_reader, root_agrees_with_reader};

/// Why a text is no MIME that may be acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MimeError {
    /// It can be read in more than one way; says what.
    Ambiguous(&'static str),
    /// It breaks the grammar; says what.
    Malformed(&'static str),
    /// A limit of REQUIREMENTS K1 or K2 is passed; says which.
    OverLimit(&'static str),
}

impl fmt::Display for MimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambiguous(what) => write!(f, "{what} can be read in more than one way"),
            Self::Malformed(what) => write!(f, "{what} is malformed"),
            Self::OverLimit(what) => write!(f, "too large or too many: {what}"),
        }
    }
}

impl std::error::Error for MimeError {}

/// Mailboxes in one address field (K2).
pub const ADDRESSES_MAX: usize = 2_000;
/// Characters of a boundary (RFC 2046 §5.1.1).
pub const BOUNDARY_BYTES_MAX: usize = 70;
/// Nested entities (K2).
pub const DEPTH_MAX: usize = 20;
/// Fields in a header section (K1).
pub const FIELDS_MAX: usize = 1_000;
/// One header field with its folds (K1).
pub const FIELD_BYTES_MAX: usize = 64 * 1024;
/// A header section with its empty line (K1).
pub const HEADER_SECTION_BYTES_MAX: usize = 256 * 1024;
/// A line without its CRLF (RFC 5322 §2.1.1).
pub const LINE_BYTES_MAX: usize = 998;
/// Parameters of one Content-Type (K2).
pub const PARAMETERS_MAX: usize = 64;
/// Entities in one message (K2).
pub const PARTS_MAX: usize = 1_000;
