//! What people write to each other. Long words, so that nothing holds them by chance.

use super::clients::MailProgram;

/// What the user of a program sends, and what comes as an answer.
pub(crate) fn letters(program: MailProgram) -> [Vec<u8>; 2] {
    match program {
        MailProgram::Telephone => [
            b"Conference postponed until Wednesday. Bring blueprints and calculations.\r\n".to_vec(),
            b"Understood. Everything travels overnight, prototypes separately.\r\n".to_vec(),
        ],
        MailProgram::Fax => [image(1), image(2)],
        MailProgram::Curl => [
            "Vertraulich: der Überraschungsbesuch der Aufsichtsbehörde.\r\n..\r\n.Punktzeile\r\n\r\n\
             Jahresabschluss und Gewinnwarnung gemeinsam veröffentlichen.\r\n"
                .as_bytes()
                .to_vec(),
            "Einverstanden. Pressemitteilung geändert, Aufsichtsratsvorsitzender unterrichtet.\r\n"
                .as_bytes()
                .to_vec(),
        ],
        MailProgram::Swaks => [
            "L'acquisition stratégique reste confidentielle jusqu'à la déclaration définitive.\r\n"
                .as_bytes()
                .to_vec(),
            "Négociations interrompues: contre-proposition inacceptable, financement compromis.\r\n"
                .as_bytes()
                .to_vec(),
        ],
        MailProgram::Neomutt => [
            b"The quarterly turnover is disappointing.\r\n\r\n.dotted unexpectedly\r\n\
              Shareholders remain uninformed.\r\n"
                .to_vec(),
            b"Restructuring begins immediately; subsidiaries continue independently.\r\n".to_vec(),
        ],
    }
}

/// The words of a text that are long enough to be looked for.
pub(crate) fn long_words(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8(text.to_vec()).unwrap();
    let words = text.split(|letter: char| !letter.is_alphabetic());
    words.filter(|word| word.len() >= 9).map(str::to_owned).collect()
}

/// A page as a fax machine makes it: a TIFF file (revision 6.0) of one strip, with noise for its T.4 code.
fn image(seed: u64) -> Vec<u8> {
    const STRIP_BYTES: u32 = 20_000;
    const FIRST_DIRECTORY: u32 = 8 + STRIP_BYTES;
    let mut out = b"II*\0".to_vec();
    out.extend_from_slice(&FIRST_DIRECTORY.to_le_bytes());
    let mut state = seed;
    for _ in 0..STRIP_BYTES {
        // Knuth's multiplier for 64 bits; the high bits are the good ones.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.push(state.to_be_bytes()[0]);
    }
    // Width, length, T.4 compression, white is zero, where the strip is and how long.
    let entries = [(256, 1728), (257, 2200), (259, 3), (262, 0), (273, 8), (279, STRIP_BYTES)];
    out.extend_from_slice(&u16::try_from(entries.len()).unwrap().to_le_bytes());
    for (tag, value) in entries {
        out.extend_from_slice(&u16::to_le_bytes(tag));
        // One value of type LONG.
        out.extend_from_slice(&[4, 0, 1, 0, 0, 0]);
        out.extend_from_slice(&u32::to_le_bytes(value));
    }
    out.extend_from_slice(&[0; 4]);
    out
}
