//! Dots, line ends and the end of data, at every position.

use proptest::prelude::*;

use super::*;

const LINE_MAX: usize = 1000;

/// What a decoder makes of pieces.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    End { message: Vec<u8>, left: Vec<u8> },
    Open(Vec<u8>),
    Violation(Violation),
}

fn decode(pieces: &[&[u8]]) -> Outcome {
    decode_with(Decoder::for_data(LINE_MAX), pieces)
}

fn decode_with(mut decoder: Decoder, pieces: &[&[u8]]) -> Outcome {
    let mut content = Content::new(1 << 20, None);
    for (index, piece) in pieces.iter().enumerate() {
        match decoder.decode(piece, &mut content) {
            Ok(Progress::More) => {}
            Ok(Progress::End(used)) => {
                let mut left = piece[used..].to_vec();
                pieces[index + 1..].iter().for_each(|piece| left.extend_from_slice(piece));
                return Outcome::End { message: content.finish().unwrap().to_vec(), left };
            }
            Err(violation) => return Outcome::Violation(violation),
        }
    }
    Outcome::Open(content.finish().unwrap().to_vec())
}

fn encode(segments: &[Bytes]) -> Vec<u8> {
    let mut out = VecDeque::new();
    stuff(segments, &mut out);
    let mut wire: Vec<u8> = out.iter().flatten().copied().collect();
    wire.extend_from_slice(b".\r\n");
    wire
}

#[test]
fn only_a_dot_between_line_ends_ends_a_message() {
    let end = |message: &[u8], left: &[u8]| Outcome::End {
        message: message.to_vec(),
        left: left.to_vec(),
    };
    assert_eq!(decode(&[b".\r\nQUIT"]), end(b"", b"QUIT"));
    assert_eq!(decode(&[b"a\r\n.\r\n"]), end(b"a\r\n", b""));
    assert_eq!(decode(&[b"..\r\n..b\r\n.c\r\n.\r\n"]), end(b".\r\n.b\r\nc\r\n", b""));
    assert_eq!(decode(&[b"a\r\n.\r\n.\r\n"]), end(b"a\r\n", b".\r\n"));
    assert_eq!(decode(&[b"a.\r\n"]), Outcome::Open(b"a.\r\n".to_vec()));
    assert_eq!(decode(&[b"\r\n.\r"]), Outcome::Open(b"\r\n".to_vec()));
}

#[test]
fn no_smuggling_sequence_of_the_fixtures_ends_a_message() {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures/smtp-smuggling/expect.tsv");
    let table = std::fs::read_to_string(path).expect("the fixtures lie next to the project");
    let mut cases = 0;
    for row in table.lines().skip(1) {
        let fields: Vec<&str> = row.split('\t').collect();
        assert_eq!((fields[1], fields[3]), ("smtp-data", "not-end-of-data"), "{row}");
        let sequence =
            fields[0].replace("\\r", "\r").replace("\\n", "\n").replace("\\x00", "\0").into_bytes();
        for before in ["", "text", "text\r\n", "\r\n", ".."] {
            let wire = [before.as_bytes(), &sequence, b"MAIL FROM:<evil@x>\r\n.\r\n"].concat();
            for at in 0..wire.len() {
                let outcome = decode(&[&wire[..at], &wire[at..]]);
                assert!(matches!(outcome, Outcome::Violation(_)), "{row}: {before:?} {outcome:?}");
            }
        }
        cases += 1;
    }
    assert_eq!(cases, 9);
}

#[test]
fn every_near_end_of_up_to_six_octets_is_the_end_only_if_it_is_exact() {
    // All strings over an alphabet of what matters, after text inside a line.
    let alphabet = *b"\r\n.\0a";
    for length in 0..=6_u32 {
        for number in 0..5_usize.pow(length) {
            let tail: Vec<u8> =
                (0..length).map(|place| alphabet[number / 5_usize.pow(place) % 5]).collect();
            let wire = [b"x", &tail[..]].concat();
            let whole = decode(&[&wire]);
            let exact = first_exact_end(&wire);
            match &whole {
                Outcome::End { left, .. } => {
                    assert_eq!(Some(wire.len() - left.len()), exact, "{wire:?}");
                }
                Outcome::Open(_) => assert_eq!(exact, None, "{wire:?}"),
                Outcome::Violation(_) => {}
            }
            let octets: Vec<&[u8]> = wire.chunks(1).collect();
            assert_eq!(decode(&octets), whole, "{wire:?}");
            if is_clean_up_to(&wire, exact.unwrap_or(wire.len())) {
                assert!(!matches!(whole, Outcome::Violation(_)), "{wire:?}");
            } else {
                assert!(matches!(whole, Outcome::Violation(_)), "{wire:?}");
            }
        }
    }
}

fn first_exact_end(wire: &[u8]) -> Option<usize> {
    wire.windows(5).position(|window| window == b"\r\n.\r\n").map(|at| at + 5)
}

/// The plain reading of RFC 5321 §2.3.8; a CR at the very end may still become a pair.
fn is_clean_up_to(wire: &[u8], end: usize) -> bool {
    let text = &wire[..end];
    (0..end).all(|at| match text[at] {
        0 => false,
        b'\n' => at > 0 && text[at - 1] == b'\r',
        b'\r' => at + 1 == end || text[at + 1] == b'\n',
        _ => true,
    })
}

#[test]
fn lines_are_taken_up_to_the_limit() {
    for (length, fits) in [(LINE_MAX, true), (LINE_MAX + 1, false)] {
        let line = [&vec![b'x'; length - 2][..], b"\r\n"].concat();
        for wire in [
            [&line[..], b".\r\n"].concat(),
            [b"a\r\n", &line[..], b"b\r\n.\r\n"].concat(),
            [b"..\r\n", &line[..], &line[..], b".\r\n"].concat(),
        ] {
            for at in 0..wire.len() {
                let outcome = decode(&[&wire[..at], &wire[at..]]);
                if fits {
                    assert!(matches!(outcome, Outcome::End { .. }), "{at}: {outcome:?}");
                } else {
                    assert_eq!(outcome, Outcome::Violation(Violation::LineTooLong), "{at}");
                }
            }
        }
    }
}

#[test]
fn a_message_over_the_limit_is_counted_and_not_kept() {
    for (length, kept) in [(10_usize, true), (11, false)] {
        let mut content = Content::new(10, None);
        let text = [&vec![b'x'; length - 2][..], b"\r\n"].concat();
        Decoder::for_data(LINE_MAX).decode(&text, &mut content).unwrap();
        assert_eq!(content.received(), u64::try_from(length).unwrap());
        assert_eq!(content.is_too_large(), !kept);
        assert_eq!(content.held() > 0, kept);
        assert_eq!(content.finish().is_some(), kept);
    }
}

#[test]
fn chunks_have_no_dots_and_get_a_last_line_end() {
    let mut decoder = Decoder::for_chunks(LINE_MAX);
    let mut content = Content::new(100, None);
    for piece in [&b".a\r"[..], b"\n.\r\n", b".", b".x"] {
        assert_eq!(decoder.decode(piece, &mut content), Ok(Progress::More));
    }
    decoder.finish_chunks(&mut content).unwrap();
    assert_eq!(&content.finish().unwrap()[..], b".a\r\n.\r\n..x\r\n");
    let mut content = Content::new(100, None);
    let mut decoder = Decoder::for_chunks(LINE_MAX);
    decoder.decode(b"a\r", &mut content).unwrap();
    assert_eq!(decoder.finish_chunks(&mut content), Err(Violation::BareCr));
}

#[test]
fn stuffing_sees_dots_across_segments() {
    let whole = b".a\r\n.\r\n..b\r\n.";
    for first in 0..=whole.len() {
        for second in first..=whole.len() {
            let segments = [&whole[..first], &whole[first..second], &whole[second..]]
                .map(Bytes::copy_from_slice);
            let wire = encode(&segments);
            assert_eq!(
                String::from_utf8_lossy(&wire),
                "..a\r\n..\r\n...b\r\n..\r\n.\r\n",
                "{first} {second}"
            );
        }
    }
    assert_eq!(encode(&[]), b".\r\n");
}

proptest! {
    #[test]
    fn any_octets_decode_the_same_however_they_are_cut(
        wire in prop::collection::vec(
            prop::sample::select(vec![b'\r', b'\n', b'.', 0, b'a', 0xff]), 0..60),
        cuts in prop::collection::vec(0..60_usize, 0..6),
    ) {
        check_cuts(&wire, cuts)?;
    }

    #[test]
    fn lines_decode_the_same_however_they_are_cut(
        lines in prop::collection::vec(
            (prop::bool::weighted(0.95), prop_oneof![
                "[.a]{0,4}", "[a-z. ]{990,1004}", "\\.{1,3}[a-z]{0,80}"]), 0..12),
        cuts in prop::collection::vec(0..6000_usize, 0..6),
    ) {
        let wire: String = lines.iter()
            .map(|(paired, line)| format!("{line}{}", if *paired { "\r\n" } else { "\n" }))
            .collect();
        check_cuts(wire.as_bytes(), cuts)?;
    }

    #[test]
    fn any_message_arrives_as_it_was(
        lines in prop::collection::vec("[.a\u{e9}]{0,5}", 0..30),
        cuts in prop::collection::vec(0..200_usize, 0..5),
    ) {
        let message: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let segments: Vec<Bytes> = pieces(message.as_bytes(), cuts.clone())
            .into_iter().map(Bytes::copy_from_slice).collect();
        let wire = encode(&segments);
        let expected = Outcome::End { message: message.into_bytes(), left: Vec::new() };
        prop_assert_eq!(decode(&pieces(&wire, cuts)), expected);
    }
}

fn check_cuts(wire: &[u8], cuts: Vec<usize>) -> Result<(), TestCaseError> {
    let chunked = |pieces: &[&[u8]]| decode_with(Decoder::for_chunks(LINE_MAX), pieces);
    prop_assert_eq!(decode(&pieces(wire, cuts.clone())), decode(&[wire]));
    prop_assert_eq!(chunked(&pieces(wire, cuts)), chunked(&[wire]));
    Ok(())
}

fn pieces(wire: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
    cuts.iter_mut().for_each(|cut| *cut = (*cut).min(wire.len()));
    cuts.sort_unstable();
    let mut start = 0;
    let mut pieces = Vec::new();
    for cut in cuts {
        pieces.push(&wire[start..cut]);
        start = cut;
    }
    pieces.push(&wire[start..]);
    pieces
}

#[test]
fn a_large_message_ends_in_a_buffer_of_the_size_that_was_promised() {
    let size = 20_u64 << 20;
    let piece = vec![b'x'; 64 << 10];
    for (promised, held_max) in [
        (Some(size), 22 << 20),
        (Some(size - size / 40), 22 << 20),
        (Some(u64::MAX), 40 << 20),
        (Some(3), 40 << 20),
        (Some(0), 40 << 20),
        (None, 40 << 20),
    ] {
        let mut content = Content::new(50 << 20, promised);
        for _ in 0..size / (64 << 10) {
            content.push(&piece);
            let received = usize::try_from(content.received()).unwrap();
            assert!(content.held() <= (2 * received).max(1 << 20), "{received} {}", content.held());
        }
        assert!(content.held() <= held_max, "{promised:?} {}", content.held());
        assert_eq!(content.finish().unwrap().len(), 20 << 20);
    }
}

#[test]
fn a_promise_that_is_not_kept_holds_no_memory() {
    let mut content = Content::new(u64::MAX, Some(u64::MAX));
    content.push(b"short\r\n");
    assert_eq!(content.held(), 1 << 20);
    let message = content.finish().unwrap().try_into_mut().unwrap();
    assert_eq!((&message[..], message.capacity()), (&b"short\r\n"[..], 7));
    let mut content = Content::new(3 << 20, None);
    content.push(&vec![b'x'; (2 << 20) + 1]);
    assert_eq!(content.held(), 3 << 20, "never more than may come");
    let mut content = Content::new(100, Some(100));
    content.push(&[b'x'; 101]);
    assert_eq!((content.held(), content.is_too_large()), (0, true));
}
