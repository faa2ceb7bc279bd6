//! Octets as hexadecimal digits (RFC 4648 §8): written in lower case, read in either.

/// Writes two digits an octet to the end of a text; nothing is left elsewhere in memory.
pub fn write(text: &mut String, octets: &[u8]) {
    for octet in octets {
        for nibble in [octet >> 4, octet & 0xf] {
            text.extend(char::from_digit(u32::from(nibble), 16));
        }
    }
}

/// The digits of some octets.
pub fn text(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len().saturating_mul(2));
    write(&mut text, octets);
    text
}

/// Reads digits; `None` where something else is among them or one is missing.
pub fn read(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks() else { return None };
    pairs.iter().map(|[high, low]| octet(*high, *low)).collect()
}

/// One octet of its two digits.
pub(crate) fn octet(high: u8, low: u8) -> Option<u8> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(nibble(high)? << 4 | nibble(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let octets: Vec<u8> = (0..=255).collect();
        let digits = text(&octets);
        assert!(digits.starts_with("000102") && digits.ends_with("fdfeff"));
        assert_eq!(read(&digits), Some(octets.clone()));
        assert_eq!(read(&digits.to_uppercase()), Some(octets));
        assert_eq!(read(""), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_hexadecimal_is_not_read() {
        for text in ["0", "0g", "+1", " 1", "é", "012"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
