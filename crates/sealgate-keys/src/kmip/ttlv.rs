//! TTLV, the encoding of KMIP (KMIP 1.4 §9.1): tag, type, length and value of every item, padded to eight bytes.
//!
//! Reading borrows and goes no deeper than the caller asks, so there is no depth to bound; the size of a message is
//! bounded by whoever receives it ([`MESSAGE_BYTES_MAX`]).

use std::fmt;

use zeroize::Zeroizing;

/// What an item is called (§9.1.3.1): three bytes, of which the first is 0x42 in all that the standard defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u32);

/// An item's type (§9.1.1.2), those of it that occur in our messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Items one after another.
    Structure,
    /// 32 bits, signed.
    Integer,
    /// 64 bits, signed.
    LongInteger,
    /// 32 bits from a list.
    Enumeration,
    /// 64 bits, 0 or 1.
    Boolean,
    /// UTF-8.
    TextString,
    /// Octets.
    ByteString,
    /// Seconds since 1970, 64 bits.
    DateTime,
    /// Anything else: seen, not read.
    Other(u8),
}

impl Kind {
    fn from_code(code: u8) -> Self {
        match code {
            0x01 => Self::Structure,
            0x02 => Self::Integer,
            0x03 => Self::LongInteger,
            0x05 => Self::Enumeration,
            0x06 => Self::Boolean,
            0x07 => Self::TextString,
            0x08 => Self::ByteString,
            0x09 => Self::DateTime,
            other => Self::Other(other),
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Structure => 0x01,
            Self::Integer => 0x02,
            Self::LongInteger => 0x03,
            Self::Enumeration => 0x05,
            Self::Boolean => 0x06,
            Self::TextString => 0x07,
            Self::ByteString => 0x08,
            Self::DateTime => 0x09,
            Self::Other(code) => code,
        }
    }
}

/// What was read is not what the protocol says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(pub String);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KMIP message: {}", self.0)
    }
}

impl std::error::Error for DecodeError {}

/// One item; the value without its padding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    /// Its name.
    pub tag: Tag,
    /// Its type.
    pub kind: Kind,
    value: &'a [u8],
}

impl fmt::Debug for Item<'_> {
    /// Without the value, which may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x} {:?} ({} bytes)", self.tag.0, self.kind, self.value.len())
    }
}

impl<'a> Item<'a> {
    /// The one item that these bytes are.
    ///
    /// # Errors
    /// [`DecodeError`] where they are none, or more than one.
    pub fn only(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut items = Items { rest: bytes };
        let item = items.next().ok_or_else(|| DecodeError("empty".to_owned()))??;
        if items.rest.is_empty() { Ok(item) } else { Err(item.error("something behind it")) }
    }

    /// What a structure holds.
    ///
    /// # Errors
    /// [`DecodeError`] where it is no structure, or broken.
    pub fn structure(&self) -> Result<Structure<'a>, DecodeError> {
        self.of(Kind::Structure)?;
        let items = Items { rest: self.value }.collect::<Result<Vec<_>, _>>()?;
        Ok(Structure { tag: self.tag, items })
    }

    /// An Integer's value.
    ///
    /// # Errors
    /// [`DecodeError`] where it is none.
    pub fn integer(&self) -> Result<i32, DecodeError> {
        self.of(Kind::Integer)?;
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    /// An Enumeration's value.
    ///
    /// # Errors
    /// [`DecodeError`] where it is none.
    pub fn enumeration(&self) -> Result<u32, DecodeError> {
        self.of(Kind::Enumeration)?;
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    /// A Text String's value.
    ///
    /// # Errors
    /// [`DecodeError`] where it is none, or no UTF-8.
    pub fn text(&self) -> Result<&'a str, DecodeError> {
        self.of(Kind::TextString)?;
        std::str::from_utf8(self.value).map_err(|_| self.error("not UTF-8"))
    }

    /// A Byte String's value.
    ///
    /// # Errors
    /// [`DecodeError`] where it is none.
    pub fn bytes(&self) -> Result<&'a [u8], DecodeError> {
        self.of(Kind::ByteString)?;
        Ok(self.value)
    }

    /// A Boolean's value.
    ///
    /// # Errors
    /// [`DecodeError`] where it is none.
    pub fn boolean(&self) -> Result<bool, DecodeError> {
        self.of(Kind::Boolean)?;
        match u64::from_be_bytes(self.fixed()?) {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.error("neither true nor false")),
        }
    }

    fn of(&self, kind: Kind) -> Result<(), DecodeError> {
        if self.kind == kind { Ok(()) } else { Err(self.error(&format!("not a {kind:?}"))) }
    }

    fn fixed<const N: usize>(&self) -> Result<[u8; N], DecodeError> {
        self.value.try_into().map_err(|_| self.error("of the wrong length"))
    }

    fn error(&self, why: &str) -> DecodeError {
        DecodeError(format!("item {:06x}: {why}", self.tag.0))
    }
}

/// What a structure holds, in order.
#[derive(Clone, Debug)]
pub struct Structure<'a> {
    tag: Tag,
    items: Vec<Item<'a>>,
}

impl<'a> Structure<'a> {
    /// All items.
    pub fn items(&self) -> &[Item<'a>] {
        &self.items
    }

    /// The first with this name.
    pub fn find(&self, tag: Tag) -> Option<Item<'a>> {
        self.items.iter().find(|item| item.tag == tag).copied()
    }

    /// All with this name.
    pub fn all(&self, tag: Tag) -> impl Iterator<Item = Item<'a>> + '_ {
        self.items.iter().filter(move |item| item.tag == tag).copied()
    }

    /// The first with this name.
    ///
    /// # Errors
    /// [`DecodeError`] where there is none.
    pub fn expect(&self, tag: Tag) -> Result<Item<'a>, DecodeError> {
        let missing = || DecodeError(format!("structure {:06x} has no {:06x}", self.tag.0, tag.0));
        self.find(tag).ok_or_else(missing)
    }
}

struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let read = read_item(self.rest);
        // After an error there is nothing to go on with.
        self.rest = read.as_ref().map_or(&[], |(_, rest)| rest);
        Some(read.map(|(item, _)| item))
    }
}

fn read_item(bytes: &[u8]) -> Result<(Item<'_>, &[u8]), DecodeError> {
    let cut = || DecodeError("cut off".to_owned());
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(cut)?;
    let [t0, t1, t2, kind, length @ ..] = *header;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| cut())?;
    let padded = length.checked_next_multiple_of(ALIGNMENT).ok_or_else(cut)?;
    let (padded, rest) = rest.split_at_checked(padded).ok_or_else(cut)?;
    let value = padded.get(..length).ok_or_else(cut)?;
    let item =
        Item { tag: Tag(u32::from_be_bytes([0, t0, t1, t2])), kind: Kind::from_code(kind), value };
    Ok((item, rest))
}

/// Writes items one after another. What is written may be a key, so the buffer is wiped when dropped.
#[derive(Default)]
pub struct Writer {
    out: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({} bytes)", self.out.len())
    }
}

impl Writer {
    /// One item, a structure, as bytes.
    pub fn message(tag: Tag, content: impl FnOnce(&mut Self)) -> Zeroizing<Vec<u8>> {
        let mut writer = Self { out: Zeroizing::new(Vec::with_capacity(USUAL_BYTES)) };
        writer.structure(tag, content);
        writer.out
    }

    /// A structure.
    pub fn structure(&mut self, tag: Tag, content: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        self.header(tag, Kind::Structure, 0);
        content(self);
        let length = self.out.len().saturating_sub(start).saturating_sub(HEADER_BYTES);
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let at = start.saturating_add(LENGTH_OFFSET);
        if let Some(place) = self.out.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = length;
        }
    }

    /// An Integer.
    pub fn integer(&mut self, tag: Tag, value: i32) {
        self.item(tag, Kind::Integer, &value.to_be_bytes());
    }

    /// An Enumeration.
    pub fn enumeration(&mut self, tag: Tag, value: impl Into<u32>) {
        self.item(tag, Kind::Enumeration, &value.into().to_be_bytes());
    }

    /// A Boolean.
    pub fn boolean(&mut self, tag: Tag, value: bool) {
        self.item(tag, Kind::Boolean, &u64::from(value).to_be_bytes());
    }

    /// A Text String.
    pub fn text(&mut self, tag: Tag, value: &str) {
        self.item(tag, Kind::TextString, value.as_bytes());
    }

    /// A Byte String.
    pub fn bytes(&mut self, tag: Tag, value: &[u8]) {
        self.item(tag, Kind::ByteString, value);
    }

    /// A Date-Time, in seconds since 1970.
    pub fn date_time(&mut self, tag: Tag, value: i64) {
        self.item(tag, Kind::DateTime, &value.to_be_bytes());
    }

    fn item(&mut self, tag: Tag, kind: Kind, value: &[u8]) {
        let padded = value.len().next_multiple_of(ALIGNMENT);
        self.reserve(HEADER_BYTES.saturating_add(padded));
        self.header(tag, kind, u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.out.extend_from_slice(value);
        let end = self.out.len().next_multiple_of(ALIGNMENT);
        self.out.resize(end, 0);
    }

    fn header(&mut self, tag: Tag, kind: Kind, length: u32) {
        self.reserve(HEADER_BYTES);
        let [_, t0, t1, t2] = tag.0.to_be_bytes();
        self.out.extend_from_slice(&[t0, t1, t2, kind.code()]);
        self.out.extend_from_slice(&length.to_be_bytes());
    }

    /// A vector that grows by itself leaves the old bytes, keys among them, in freed memory.
    fn reserve(&mut self, more: usize) {
        let needed = self.out.len().saturating_add(more);
        if needed > self.out.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.saturating_mul(2)));
            larger.extend_from_slice(&self.out);
            self.out = larger;
        }
    }
}

/// How many bytes a whole message has, told by its first [`HEADER_BYTES`].
///
/// # Errors
/// [`DecodeError`] where it is longer than [`MESSAGE_BYTES_MAX`].
pub fn message_bytes(header: &[u8; HEADER_BYTES]) -> Result<usize, DecodeError> {
    let [.., l0, l1, l2, l3] = *header;
    let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    let whole = length.saturating_add(HEADER_BYTES);
    if whole > MESSAGE_BYTES_MAX {
        return Err(DecodeError(format!("{whole} bytes, more than {MESSAGE_BYTES_MAX}")));
    }
    Ok(whole)
}

/// Tag, type and length.
pub const HEADER_BYTES: usize = 8;
/// Messages are small: the largest holds a certificate chain or a list of some thousand identifiers.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
const LENGTH_OFFSET: usize = 4;
const ALIGNMENT: usize = 8;
/// A request to sign is below this.
const USUAL_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OUTER: Tag = Tag(0x42_0078);
    const INNER: Tag = Tag(0x42_0020);

    /// The examples of KMIP 1.4 §9.1.2.
    #[test]
    fn the_standards_examples_are_written_so() {
        let bytes = Writer::message(INNER, |writer| {
            writer.enumeration(Tag(0x42_0004), 254_u32);
            writer.integer(Tag(0x42_0005), 255);
        });
        let expected =
            "42002001000000204200040500000004000000fe000000004200050200000004000000ff00000000";
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, expected);
        let bytes = Writer::message(OUTER, |writer| writer.text(INNER, "Hello World"));
        assert_eq!(bytes.len(), 8 + 8 + 16);
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = Writer::message(OUTER, |writer| {
            writer.structure(INNER, |writer| writer.bytes(INNER, &[1; 2000]));
            writer.integer(INNER, -7);
            writer.text(INNER, "ä");
        });
        assert_eq!(message_bytes(bytes.first_chunk().unwrap()), Ok(bytes.len()));
        let outer = Item::only(&bytes).unwrap().structure().unwrap();
        let [first, second, third] = outer.items() else { panic!("{outer:?}") };
        let inner = first.structure().unwrap();
        assert_eq!(inner.expect(INNER).unwrap().bytes().unwrap(), [1; 2000]);
        assert_eq!(second.integer(), Ok(-7));
        assert_eq!(third.text(), Ok("ä"));
        assert!(third.bytes().is_err() && second.enumeration().is_err());
        for length in 0..bytes.len() {
            assert!(Item::only(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_its_header() {
        assert!(message_bytes(&[0x42, 0, 0x7b, 1, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(message_bytes(&[0x42, 0, 0x7b, 1, 0, 0x10, 0, 0]).is_err());
        assert_eq!(message_bytes(&[0x42, 0, 0x7b, 1, 0, 0x0f, 0xff, 0xf8]), Ok(MESSAGE_BYTES_MAX));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(item) = Item::only(&bytes) {
                let _ = item.structure().map(|inner| inner.items().len());
            }
        }
    }
}
