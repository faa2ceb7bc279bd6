//! What an eavesdropper finds in recorded streams: words and bytes in every form in which mail carries them.

/// Recorded streams, ready to be searched.
#[derive(Debug)]
pub struct Overheard {
    // As recorded, and without line ends: base64 and quoted-printable break words between lines.
    texts: Vec<String>,
}

impl Overheard {
    /// Takes what was recorded.
    pub fn new(streams: &[Vec<u8>]) -> Self {
        let mut texts = Vec::new();
        for stream in streams {
            let text = latin1(stream);
            texts.push(text.replace("=\r\n", ""));
            texts.push(text.replace("\r\n", ""));
            texts.push(text);
        }
        Self { texts }
    }

    /// Whether a text occurs as it is.
    pub fn holds(&self, text: &str) -> bool {
        let needle = latin1(text.as_bytes());
        self.texts.iter().any(|text| text.contains(&needle))
    }

    /// The form in which bytes occur: in clear, in base64 of any alignment or quoted-printable (RFC 2045 §6.7, 6.8).
    ///
    /// At least nine bytes, so that base64 cannot hold them by chance.
    pub fn reveals(&self, bytes: &[u8]) -> Option<&'static str> {
        assert!(bytes.len() >= 9, "too short to mean anything in base64: {bytes:?}");
        let forms = [
            ("in clear", latin1(bytes)),
            ("quoted-printable", quoted(bytes, |byte| byte.is_ascii_graphic() && byte != b'=')),
            ("quoted-printable throughout", quoted(bytes, |_| false)),
            ("base64", base64_core(bytes, 0)),
            ("base64, one byte in", base64_core(bytes, 1)),
            ("base64, two bytes in", base64_core(bytes, 2)),
        ];
        forms
            .into_iter()
            .find(|(_, needle)| self.texts.iter().any(|text| text.contains(needle)))
            .map(|(form, _)| form)
    }

    /// The place and form in which any stretch of some longer content occurs, line by line of the 57 bytes that make a
    /// line of base64, and in the middle of each.
    pub fn reveals_stretch(&self, content: &[u8]) -> Option<(usize, &'static str)> {
        let starts =
            (0..content.len()).step_by(57).flat_map(|start| [start, start + 19, start + 38]);
        starts
            .filter_map(|start| Some((start, content.get(start..start + 12)?)))
            .find_map(|(start, stretch)| Some((start, self.reveals(stretch)?)))
    }
}

/// One character a byte, so that text search serves for bytes.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn quoted(bytes: &[u8], is_literal: impl Fn(u8) -> bool) -> String {
    bytes
        .iter()
        .map(
            |byte| {
                if is_literal(*byte) {
                    char::from(*byte).to_string()
                } else {
                    format!("={byte:02X}")
                }
            },
        )
        .collect()
}

/// The base64 characters that bytes alone determine where so many others stand before them in their group of three.
fn base64_core(bytes: &[u8], before: usize) -> String {
    let padded = [&[0; 2][..before], bytes].concat();
    let text = base64_simd::STANDARD.encode_to_string(&padded);
    let first = [0, 2, 3][before];
    // Six bits a character; the last whole one.
    text[first..padded.len() * 8 / 6].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail;

    const WORD: &[u8] = "Geschäftsgeheimnis".as_bytes();

    #[test]
    fn finds_a_word_in_every_form() {
        for before in 0..80 {
            let text = [&vec![b'x'; before][..], WORD, b" and what comes after"].concat();
            let forms = [
                text.clone(),
                mail::encode_base64(&text),
                quoted(&text, |byte| byte.is_ascii()).into_bytes(),
                quoted(&text, |byte| byte.is_ascii()).replace("heim", "he=\r\nim").into_bytes(),
                quoted(&text, |_| false).into_bytes(),
            ];
            for form in forms {
                let overheard = Overheard::new(std::slice::from_ref(&form));
                assert!(overheard.reveals(WORD).is_some(), "{}", String::from_utf8_lossy(&form));
                assert_eq!(overheard.reveals(b"Betriebsausflug"), None);
            }
        }
    }

    #[test]
    fn finds_a_stretch_of_content() {
        let content: Vec<u8> = (0..=255).collect();
        let streams = [b"nothing".to_vec(), mail::encode_base64(&content[100..])];
        assert!(Overheard::new(&streams).reveals_stretch(&content).is_some());
        assert_eq!(Overheard::new(&streams).reveals_stretch(&content[..100]), None);
    }
}
