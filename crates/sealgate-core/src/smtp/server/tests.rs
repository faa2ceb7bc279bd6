//! Dialogues, each also cut at every position.

use proptest::prelude::*;

use super::*;
use crate::address::Domain;

/// What a session said and what came of it.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    output: String,
    messages: Vec<(Envelope, Bytes)>,
    /// Codes; 0 where the client ended it.
    discarded: Vec<u16>,
    closed: bool,
}

fn options(protocol: Protocol) -> Options {
    Options {
        protocol,
        hostname: Domain::parse("gate.nec.example").unwrap(),
        postmaster_domain: Domain::parse("nec.example").unwrap(),
        starttls: StartTls::Offered,
        smtputf8: true,
        dsn: true,
        requiretls: true,
        limits: Limits::default(),
    }
}

/// Plays pieces to a session whose policy is: no sender no@x, no recipient no@x, no content from nodata@x, and final
/// replies 250, 451, 550 in turn.
fn play(options: Options, pieces: &[&[u8]]) -> Outcome {
    let mut server = Server::new(options);
    let mut input = BytesMut::new();
    let mut outcome = Outcome {
        output: String::new(),
        messages: Vec::new(),
        discarded: Vec::new(),
        closed: false,
    };
    for piece in pieces {
        input.extend_from_slice(piece);
        pump(&mut server, &mut input, &mut outcome);
        let output = server.output().split();
        outcome.output.push_str(std::str::from_utf8(&output).unwrap());
    }
    outcome
}

fn pump(server: &mut Server, input: &mut BytesMut, outcome: &mut Outcome) {
    let no = Reply::new(550, (5, 7, 1), "no");
    loop {
        match server.advance(input) {
            Event::Close => {
                outcome.closed = true;
                return;
            }
            Event::NeedInput => return,
            Event::NeedAnswer => panic!("everything is answered"),
            Event::StartTls => {
                assert!(input.is_empty());
                server.tls_started();
            }
            Event::Mail { reverse_path, .. } => {
                match reverse_path.is_some_and(|from| from.to_string() == "no@x") {
                    true => server.refuse(&no),
                    false => server.accept(),
                }
            }
            Event::Recipient(to) if to.address.to_string() == "no@x" => server.refuse(&no),
            Event::Recipient(_) => server.accept(),
            Event::Data => {
                let from = server.envelope().unwrap().reverse_path.clone();
                match from.is_some_and(|from| from.to_string() == "nodata@x") {
                    true => server.refuse(&Reply::new(451, (4, 3, 0), "no data")),
                    false => server.accept(),
                }
            }
            Event::Discarded(discarded) => {
                outcome.discarded.push(discarded.refusal.map_or(0, |reply| reply.code));
            }
            Event::Message(message) => {
                outcome.messages.push(*message);
                for code in [250_u16, 451, 550].iter().cycle() {
                    let class = u8::try_from(code / 100).unwrap();
                    server.answer(&Reply::new(*code, (class, 0, 0), "final"));
                    if server.replies_owed() == 0 {
                        break;
                    }
                }
            }
        }
    }
}

/// Plays a dialogue whole and cut at every position, which must make no difference.
fn dialogue_with(options: Options, text: &str) -> Outcome {
    let whole = play(options.clone(), &[text.as_bytes()]);
    for at in 1..text.len() {
        let (first, second) = text.as_bytes().split_at(at);
        // Input that came with STARTTLS is lost on purpose: those dialogues are cut in their own test.
        assert_eq!(play(options.clone(), &[first, second]), whole, "cut at {at}");
    }
    let octets: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
    assert_eq!(play(options, &octets), whole, "octet by octet");
    whole
}

/// REQUIREMENTS K9.
#[test]
fn who_guesses_recipients_hears_no_more_and_a_list_with_dead_ones_is_served() {
    let limits = Limits { errors_max: 3, refusals_are_errors: true, ..Limits::default() };
    let outside = |text: &str| {
        let whole = Options { limits, ..options(Protocol::Smtp) };
        dialogue_with(whole, &format!("EHLO c\r\n{text}"))
    };
    let (mail, dead) = ("MAIL FROM:<a@x>\r\n", "RCPT TO:<no@x>\r\n");
    let (alive, data) = ("RCPT TO:<b@x>\r\n", "DATA\r\nx: y\r\n.\r\n");
    // Guesses in one transaction, and over several.
    let guessed = outside(&format!("{mail}{}RSET\r\n{mail}", dead.repeat(6)));
    assert_eq!(statuses(&guessed), "250 250 550 550 550 550 452 452 250 421");
    let guessed = outside(&format!("{mail}{dead}RSET\r\n").repeat(5));
    assert!(guessed.closed && guessed.output.matches("\r\n550 ").count() == 4, "{guessed:?}");
    // At the limit.
    let three = format!("{mail}{}{alive}RSET\r\n{mail}{alive}", dead.repeat(3));
    assert_eq!(statuses(&outside(&three)), "250 250 550 550 550 250 250 250 250");
    // Over it, and whoever was admitted gets the message; with it the guesses are forgiven.
    let list = format!("{mail}{alive}{}{data}", dead.repeat(5)).repeat(3);
    let outcome = outside(&list);
    assert_eq!(outcome.messages.len(), 3, "{outcome:?}");
    assert!(!outcome.closed);
    // Where nobody may guess because he is known, nothing is counted.
    let known = dialogue(&format!("EHLO c\r\n{mail}{}RSET\r\n{mail}", dead.repeat(30)));
    assert!(!known.closed && known.output.matches("\r\n550 ").count() == 30);
}

fn dialogue(text: &str) -> Outcome {
    dialogue_with(options(Protocol::Smtp), text)
}

/// The codes of the replies, without the greeting's.
fn codes(outcome: &Outcome) -> Vec<&str> {
    let last_lines = outcome.output.lines().filter(|line| line.as_bytes()[3] == b' ');
    last_lines.skip(1).map(|line| line[4..].split(' ').next().unwrap()).collect()
}

fn statuses(outcome: &Outcome) -> String {
    let mut text = String::new();
    for line in outcome.output.lines().skip(1).filter(|line| line.as_bytes()[3] == b' ') {
        text.push_str(&line[..3]);
        text.push(' ');
    }
    text.trim_end().to_owned()
}

#[test]
fn a_pipelined_message_is_handed_over() {
    let outcome = dialogue(
        "EHLO client.example\r\nMAIL FROM:<a@x> SIZE=20 BODY=8BITMIME RET=HDRS ENVID=e1\r\n\
         RCPT TO:<b@y> NOTIFY=FAILURE ORCPT=rfc822;B@y\r\nRCPT TO:<no@x>\r\nRCPT TO:<postmaster>\r\n\
         DATA\r\nSubject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n",
    );
    assert_eq!(statuses(&outcome), "250 250 250 550 250 354 250 221");
    assert!(outcome.closed);
    let (envelope, message) = &outcome.messages[0];
    assert_eq!(&message[..], b"Subject: x\r\n\r\n.dot\r\n");
    assert_eq!(envelope.reverse_path, Some(Address::parse("a@x").unwrap()));
    let to: Vec<String> = envelope.recipients.iter().map(|to| to.address.to_string()).collect();
    assert_eq!(to, ["b@y", "postmaster@nec.example"]);
    assert_eq!(envelope.recipients[0].notify.as_deref(), Some("FAILURE"));
    assert_eq!(envelope.recipients[0].orcpt.as_deref(), Some("rfc822;B@y"));
    assert_eq!(envelope.parameters.envid.as_deref(), Some("e1"));
    assert!(envelope.parameters.eight_bit);
}

#[test]
fn hello_says_what_is_offered() {
    let outcome = dialogue("EHLO a\r\n");
    assert_eq!(
        outcome.output,
        "220 gate.nec.example ESMTP sealgate\r\n250-gate.nec.example\r\n250-PIPELINING\r\n\
         250-SIZE 52428800\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n\
         250-SMTPUTF8\r\n250-DSN\r\n250 STARTTLS\r\n"
    );
    let outcome = dialogue("HELO a\r\n");
    assert!(outcome.output.ends_with("\r\n250 gate.nec.example\r\n"), "{}", outcome.output);
    let plain = Options {
        starttls: StartTls::Absent,
        smtputf8: false,
        dsn: false,
        ..options(Protocol::Smtp)
    };
    let outcome = dialogue_with(
        plain,
        "EHLO a\r\nMAIL FROM:<> RET=FULL\r\nMAIL FROM:<> SMTPUTF8\r\nMAIL FROM:<>\r\n\
         RCPT TO:<a@b> NOTIFY=NEVER\r\nSTARTTLS\r\n",
    );
    assert_eq!(codes(&outcome)[1..], ["5.5.4", "5.5.4", "2.1.0", "5.5.4", "5.5.1"]);
    assert!(!outcome.output.contains("STARTTLS"));
}

#[test]
fn bad_sequences_get_503() {
    let outcome = dialogue(
        "MAIL FROM:<a@x>\r\nEHLO c\r\nRCPT TO:<a@x>\r\nDATA\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\n\
         DATA\r\nRCPT TO:<no@x>\r\nDATA\r\nRSET\r\nDATA\r\nLHLO x\r\nEHLO c\r\nRCPT TO:<a@x>\r\n",
    );
    assert_eq!(statuses(&outcome), "503 250 503 503 250 503 503 550 554 250 503 500 250 503");
}

#[test]
fn other_commands() {
    let outcome = dialogue(
        "NOOP\r\nHELP\r\nVRFY a\r\nEXPN a\r\nRSET\r\nFOO\r\nNOOP\nNOOP\r\nGET / HTTP/1.0\r\nNOOP\r\n",
    );
    assert_eq!(statuses(&outcome), "250 214 252 502 250 500 500 250 421");
    assert!(outcome.closed);
}

#[test]
fn a_refused_data_lets_the_session_go_on() {
    let outcome = dialogue(
        "EHLO c\r\nMAIL FROM:<nodata@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nMAIL FROM:<no@x>\r\nQUIT\r\n",
    );
    assert_eq!(statuses(&outcome), "250 250 250 451 550 221");
}

#[test]
fn lmtp_replies_once_for_each_recipient() {
    let outcome = dialogue_with(
        options(Protocol::Lmtp),
        "EHLO c\r\nLHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<no@x>\r\nDATA\r\nRCPT TO:<b@y>\r\n\
         RCPT TO:<c@y>\r\nRCPT TO:<no@x>\r\nRCPT TO:<d@y>\r\nRCPT TO:<e@y>\r\nDATA\r\nx\r\n.\r\n\
         MAIL FROM:<>\r\n",
    );
    assert!(outcome.output.starts_with("220 gate.nec.example LMTP"));
    assert_eq!(
        statuses(&outcome),
        "500 250 250 550 503 250 250 550 250 250 354 250 451 550 250 250"
    );
    assert_eq!(outcome.messages[0].0.recipients.len(), 4);
}

#[test]
fn lmtp_replies_can_be_given_one_by_one() {
    let mut server = Server::new(options(Protocol::Lmtp));
    let mut input = BytesMut::from(
        &b"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n.\r\nNOOP\r\n"[..],
    );
    loop {
        match server.advance(&mut input) {
            Event::Mail { .. } | Event::Recipient(_) | Event::Data => server.accept(),
            Event::Message(message) => {
                assert!(message.1.is_empty());
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    server.output().clear();
    assert_eq!(server.replies_owed(), 2);
    server.answer(&Reply::new(250, (2, 0, 0), "one"));
    assert_eq!(&server.output().split()[..], b"250 2.0.0 one\r\n");
    assert_eq!(server.advance(&mut input), Event::NeedAnswer);
    server.answer(&Reply::new(450, (4, 0, 0), "two"));
    assert_eq!(server.replies_owed(), 0);
    assert_eq!(server.advance(&mut input), Event::NeedInput);
    assert_eq!(&server.output()[..], b"450 4.0.0 two\r\n250 2.0.0 ok\r\n");
}

#[test]
fn chunks_make_a_message() {
    let outcome = dialogue(
        "EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nBDAT 4\r\n.a\r\nBDAT 0\r\nDATA\r\n\
         RCPT TO:<c@y>\r\nBDAT 3 LAST\r\n\r\nxNOOP\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n\
         BDAT 0 LAST\r\n",
    );
    assert_eq!(statuses(&outcome), "250 250 250 250 250 503 503 250 250 250 250 250");
    assert_eq!(&outcome.messages[0].1[..], b".a\r\n\r\nx\r\n");
    assert_eq!(&outcome.messages[1].1[..], b"");
}

#[test]
fn a_refused_chunk_is_read_past() {
    let outcome = dialogue(
        "EHLO c\r\nBDAT 6\r\nNOOP\r\nMAIL FROM:<nodata@x>\r\nRCPT TO:<b@y>\r\nBDAT 6 LAST\r\n\
         \n\r\0xyzNOOP\r\n",
    );
    assert_eq!(statuses(&outcome), "250 503 250 250 451 250");
    assert!(outcome.messages.is_empty());
    assert_eq!(outcome.discarded, [503, 451]);
}

#[test]
fn chunks_bear_no_bare_line_ends() {
    let head = "EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n";
    for chunk in ["BDAT 2 LAST\r\na\nNOOP\r\n", "BDAT 2 LAST\r\na\r\nNOOP\r\n", "BDAT 1\r\n\0"] {
        let outcome = dialogue(&format!("{head}{chunk}"));
        assert!(outcome.output.ends_with('\n') && outcome.closed, "{chunk:?}");
        assert_eq!(outcome.discarded, [550]);
        assert!(outcome.messages.is_empty());
    }
}

#[test]
fn smuggled_ends_close_the_session() {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures/smtp-smuggling/expect.tsv");
    let table = std::fs::read_to_string(path).expect("the fixtures lie next to the project");
    let mut cases = 0;
    for row in table.lines().skip(1) {
        let sequence = row.split('\t').next().unwrap();
        let sequence = sequence.replace("\\r", "\r").replace("\\n", "\n").replace("\\x00", "\0");
        let outcome = dialogue(&format!(
            "EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\ntext{sequence}\
             MAIL FROM:<evil@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nevil\r\n.\r\n"
        ));
        assert_eq!(statuses(&outcome), "250 250 250 354 550", "{row}");
        assert!(outcome.output.contains("550 5.5.2 "), "{row}");
        assert!(outcome.closed && outcome.messages.is_empty(), "{row}");
        cases += 1;
    }
    assert_eq!(cases, 9);
}

/// RFC 2033 §4.2: whoever hears nothing is tried again, and each try would tell one of them.
#[test]
fn over_lmtp_content_that_smuggles_is_refused_to_each_recipient() {
    let head = "LHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<no@x>\r\nRCPT TO:<c@y>\r\n";
    for (content, replies) in [
        ("DATA\r\ntext\n.\r\n.\r\n", "354 550 550"),
        ("BDAT 2 LAST\r\na\n", "550 550"),
        ("BDAT 2 LAST\r\na\r", "550 550"),
        // Not the last: one reply, as RFC 3030 §2 has it for such a chunk.
        ("BDAT 2\r\na\n", "550"),
    ] {
        let outcome = dialogue_with(options(Protocol::Lmtp), &format!("{head}{content}"));
        let expected = format!("250 250 250 550 250 {replies}");
        assert_eq!(statuses(&outcome), expected, "{content:?}");
        assert!(outcome.closed && outcome.messages.is_empty(), "{content:?}");
    }
}

#[test]
fn requiretls_is_offered_and_taken_within_tls_only() {
    let outcome = play(
        options(Protocol::Smtp),
        &[
            b"EHLO c\r\nMAIL FROM:<a@x> REQUIRETLS\r\nSTARTTLS\r\n",
            b"EHLO c\r\nMAIL FROM:<a@x> REQUIRETLS\r\n",
        ],
    );
    assert_eq!(statuses(&outcome), "250 555 220 250 250");
    assert_eq!(outcome.output.matches("250 REQUIRETLS\r\n").count(), 1, "{}", outcome.output);
    let never = Options { requiretls: false, ..options(Protocol::Smtp) };
    let outcome =
        play(never, &[b"EHLO c\r\nSTARTTLS\r\n", b"EHLO c\r\nMAIL FROM:<a@x> REQUIRETLS\r\n"]);
    assert_eq!(statuses(&outcome), "250 220 250 555");
}

#[test]
fn what_follows_starttls_is_discarded() {
    let outcome = play(
        options(Protocol::Smtp),
        &[
            b"EHLO c\r\nSTARTTLS\r\nEHLO evil\r\nMAIL FROM:<evil@x>\r\n",
            b"MAIL FROM:<a@x>\r\nSTARTTLS\r\nEHLO c\r\nSTARTTLS\r\nMAIL FROM:<a@x>\r\n",
        ],
    );
    // After TLS: no hello yet, TLS already on, hello without STARTTLS, TLS already on, sender.
    assert_eq!(statuses(&outcome), "250 220 503 503 250 503 250");
    assert_eq!(outcome.output.matches("STARTTLS\r\n").count(), 1);
    let outcome = play(
        options(Protocol::Smtp),
        &[b"EHLO c\r\nMAIL FROM:<a@x>\r\nSTARTTLS\r\nSTARTTLS now\r\n"],
    );
    assert_eq!(statuses(&outcome), "250 250 503 501");
}

#[test]
fn a_message_over_the_limit_is_drained() {
    let limits = Limits { message_bytes_max: 10, ..Limits::default() };
    let small = |protocol| Options { limits, ..options(protocol) };
    let head = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\n";
    let text = format!(
        "EHLO c\r\nMAIL FROM:<a@x> SIZE=11\r\nMAIL FROM:<a@x> SIZE=10\r\nRSET\r\n{head}DATA\r\n\
         12345678\r\n.\r\n{head}DATA\r\n123456789\r\n.\r\n{head}BDAT 11 LAST\r\n123456789\r\n\
         {head}BDAT 11\r\n123456789\r\nBDAT 1 LAST\r\nxNOOP\r\n"
    );
    let outcome = dialogue_with(small(Protocol::Smtp), &text);
    assert_eq!(
        statuses(&outcome),
        "250 552 250 250 250 250 250 354 250 250 250 250 354 552 250 250 250 552 \
         250 250 250 552 503 250"
    );
    assert_eq!(outcome.messages.len(), 1);
    assert_eq!(outcome.discarded, [552, 552, 552, 503]);
    let text = format!("LHLO c\r\n{head}DATA\r\n123456789\r\n.\r\nNOOP\r\n");
    let outcome = dialogue_with(small(Protocol::Lmtp), &text);
    assert_eq!(statuses(&outcome), "250 250 250 250 354 552 552 250");
}

#[test]
fn a_discarded_message_is_drained_in_constant_memory() {
    let mut server = Server::new(options(Protocol::Smtp));
    let mut input =
        BytesMut::from(&b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\nabc\r\n"[..]);
    while server.advance(&mut input) != Event::NeedInput {
        server.accept();
    }
    assert!(server.is_receiving() && server.held_bytes() >= 5);
    assert_eq!(server.received_bytes(), 5);
    server.output().clear();
    server.discard_message(Reply::from(&Refusal::Overloaded));
    for _ in 0..1000 {
        input.extend_from_slice(b"more\r\n");
        assert_eq!(server.advance(&mut input), Event::NeedInput);
        assert_eq!(server.held_bytes(), 0);
    }
    input.extend_from_slice(b".\r\n");
    assert!(matches!(server.advance(&mut input), Event::Discarded(_)));
    assert!(server.output().starts_with(b"452 4.3.1 "));
    assert!(!server.is_receiving());
}

/// While a chunk is read past nobody looks for line ends: half of one is no fault of the client.
#[test]
fn a_chunk_without_memory_is_put_off_wherever_it_was_cut() {
    let mut server = Server::new(options(Protocol::Smtp));
    let mut input =
        BytesMut::from(&b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@x>\r\nBDAT 10 LAST\r\nabc\r"[..]);
    while server.advance(&mut input) != Event::NeedInput {
        server.accept();
    }
    server.output().clear();
    server.discard_message(Reply::from(&Refusal::Overloaded));
    input.extend_from_slice(b"\nabc\r");
    assert!(matches!(server.advance(&mut input), Event::NeedInput));
    input.extend_from_slice(b"\n");
    assert!(matches!(server.advance(&mut input), Event::Discarded(_)));
    assert!(server.output().starts_with(b"452 4.3.1 "), "{:?}", server.output());
    input.extend_from_slice(b"NOOP\r\n");
    assert_eq!(server.advance(&mut input), Event::NeedInput);
    assert!(server.output().ends_with(b"250 2.0.0 ok\r\n"), "{:?}", server.output());
}

#[test]
fn recipients_over_the_limit_are_put_off() {
    let limits = Limits { recipients_max: 3, commands_max: 5, ..Limits::default() };
    let text =
        format!("EHLO c\r\nMAIL FROM:<>\r\n{}DATA\r\nx\r\n.\r\n", "RCPT TO:<a@x>\r\n".repeat(5));
    let outcome = dialogue_with(Options { limits, ..options(Protocol::Smtp) }, &text);
    assert_eq!(statuses(&outcome), "250 250 250 250 250 452 452 354 250");
    assert_eq!(codes(&outcome)[5], "4.5.3");
    assert_eq!(outcome.messages[0].0.recipients.len(), 3);
}

#[test]
fn commands_and_errors_are_limited() {
    let limits = Limits { commands_max: 5, errors_max: 3, ..Limits::default() };
    let small = || Options { limits, ..options(Protocol::Smtp) };
    let outcome = dialogue_with(small(), &"NOOP\r\n".repeat(7));
    assert_eq!(statuses(&outcome), "250 250 250 250 250 421");
    assert!(outcome.closed);
    let outcome = dialogue_with(small(), &"FOO\r\n".repeat(5));
    assert_eq!(statuses(&outcome), "500 500 500 421");
    let message = "MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\n.\r\n";
    let outcome = dialogue_with(small(), &format!("EHLO c\r\n{}", message.repeat(5)));
    assert_eq!(outcome.messages.len(), 5);
    assert!(!outcome.closed);
}

#[test]
fn long_command_lines_are_refused_and_read_past() {
    let lines = [
        format!("NOOP {}\r\n", "x".repeat(505)),
        format!("NOOP {}\r\n", "x".repeat(506)),
        format!("NOOP {}\r\n", "x".repeat(5000)),
        format!("MAIL FROM:<a@x>{} SIZE=1\r\n", " ".repeat(1000)),
        format!("MAIL FROM:<a@x>{} SIZE=1\r\n", " ".repeat(2048)),
        "NOOP\r\n".to_owned(),
    ];
    let text = format!("EHLO c\r\n{}", lines.concat());
    let whole = play(options(Protocol::Smtp), &[text.as_bytes()]);
    assert_eq!(statuses(&whole), "250 250 500 500 250 500 250");
    for size in [1, 7, 100, 2047, 2048, 2049] {
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        assert_eq!(play(options(Protocol::Smtp), &pieces), whole, "{size}");
    }
}

#[test]
fn a_connection_can_be_turned_away_at_once() {
    let reply = Reply::new(554, (5, 7, 1), "not for you");
    let mut server = Server::refusing(options(Protocol::Smtp), &reply);
    assert_eq!(&server.output()[..], b"554 5.7.1 not for you\r\n");
    assert_eq!(server.advance(&mut BytesMut::from(&b"EHLO c\r\n"[..])), Event::Close);
}

#[test]
fn refusals_say_the_id() {
    let mut server = Server::new(options(Protocol::Smtp));
    let mut input = BytesMut::from(&b"EHLO c\r\nMAIL FROM:<>\r\n"[..]);
    assert!(matches!(server.advance(&mut input), Event::Mail { .. }));
    server.set_id("ID7");
    server.accept();
    server.output().clear();
    input.extend_from_slice(b"NOOP\r\nFOO\r\n");
    assert_eq!(server.advance(&mut input), Event::NeedInput);
    assert_eq!(&server.output()[..], b"250 2.0.0 ok\r\n500 5.5.1 command not known (id ID7)\r\n");
    server.output().clear();
    server.close(&Reply::new(421, (4, 0, 0), "x".repeat(1000)));
    assert!(server.output().ends_with(b"xx (id ID7)\r\n"));
}

/// REQUIREMENTS O17: the log line of content that became no message says whose it was.
#[test]
fn content_that_becomes_no_message_is_told_with_its_envelope() {
    let limits =
        Limits { message_bytes_max: 10, commands_max: 5, errors_max: 1, ..Limits::default() };
    for (rest, code, received_bytes) in [
        ("DATA\r\nabc\n", Some(550), None),
        ("DATA\r\nab\r\n\0", Some(550), None),
        ("DATA\r\n123456789\r\n.\r\n", Some(552), Some(11)),
        ("BDAT 11\r\n123456789\r\n", Some(552), Some(11)),
        ("BDAT 3\r\nabcRSET\r\n", None, Some(3)),
        ("BDAT 3\r\nabcEHLO c\r\n", None, Some(3)),
        ("BDAT 3\r\nabcQUIT\r\n", None, Some(3)),
        ("BDAT 3\r\nabcGET / HTTP/1.1\r\n", Some(421), Some(3)),
        ("BDAT 3\r\nabcFOO\r\nFOO\r\n", Some(421), Some(3)),
        ("BDAT 3\r\nabcNOOP\r\nNOOP\r\nNOOP\r\n", Some(421), Some(3)),
    ] {
        let mut server = Server::new(Options { limits, ..options(Protocol::Smtp) });
        let text = format!("EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n{rest}");
        let mut input = BytesMut::from(text.as_bytes());
        let discarded = loop {
            match server.advance(&mut input) {
                Event::Mail { .. } => {
                    server.set_id("ID7");
                    server.accept();
                }
                Event::Recipient(_) | Event::Data => server.accept(),
                Event::Discarded(discarded) => break discarded,
                other => panic!("{rest:?}: {other:?}"),
            }
        };
        assert_eq!(discarded.refusal.map(|reply| reply.code), code, "{rest:?}");
        let envelope = discarded.envelope.unwrap();
        assert_eq!(envelope.reverse_path.unwrap().to_string(), "a@x", "{rest:?}");
        assert_eq!(envelope.recipients[0].address.to_string(), "b@y", "{rest:?}");
        if let Some(bytes) = received_bytes {
            assert_eq!(discarded.received_bytes, bytes, "{rest:?}");
        }
        let output = String::from_utf8_lossy(server.output());
        let last = output.lines().last().unwrap();
        assert_eq!(last.ends_with(" (id ID7)"), code.is_some(), "{rest:?}: {last}");
        assert_eq!(server.give_up(), None, "told once");
    }
}

/// Says yes to everything that the input asks for.
fn accept_all(server: &mut Server, input: &mut BytesMut) {
    while server.advance(input) != Event::NeedInput {
        server.accept();
    }
}

#[test]
fn what_was_decided_of_content_is_told_where_its_client_ends_it() {
    let mut server = Server::new(options(Protocol::Smtp));
    let head = b"EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nBDAT 3\r\n";
    let mut input = BytesMut::from(&head[..]);
    accept_all(&mut server, &mut input);
    server.discard_message(Reply::new(452, (4, 3, 1), "no room"));
    let discarded = server.give_up().unwrap();
    assert_eq!((discarded.refusal, discarded.decided.unwrap().code), (None, 452));
}

#[test]
fn content_that_does_not_end_is_given_up_with_its_envelope() {
    let mut server = Server::new(options(Protocol::Smtp));
    let head = b"EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n";
    let mut input = BytesMut::from(&head[..]);
    accept_all(&mut server, &mut input);
    assert_eq!(server.give_up(), None, "no content has begun");
    input.extend_from_slice(b"DATA\r\nabc\r\n");
    accept_all(&mut server, &mut input);
    let late = Reply::new(421, (4, 4, 2), "late");
    let discarded = server.close(&late).unwrap();
    assert_eq!(discarded.refusal, Some(late));
    assert_eq!(discarded.received_bytes, 5);
    assert_eq!(discarded.envelope.unwrap().recipients.len(), 1);
    assert_eq!(server.give_up(), None);
}

#[test]
fn an_id_ends_with_its_transaction() {
    let small = Limits { message_bytes_max: 10, ..Limits::default() };
    let mut server = Server::new(Options { limits: small, ..options(Protocol::Smtp) });
    let message = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n.\r\n";
    let text = format!("EHLO c\r\n{message}FOO\r\nMAIL FROM:<a@x> SIZE=11\r\nRCPT TO:<b@y>\r\n");
    let mut input = BytesMut::from(text.as_bytes());
    let mut ids = ["ID1", "ID2"].iter();
    loop {
        match server.advance(&mut input) {
            Event::Mail { parameters, .. } => {
                server.set_id(ids.next().unwrap());
                assert_eq!(server.is_too_large(parameters.size_bytes), ids.len() == 0);
                server.accept();
            }
            Event::Message(_) => server.answer(&Reply::new(451, (4, 3, 0), "later")),
            Event::NeedInput => break,
            _ => server.accept(),
        }
    }
    server.close(&Reply::new(421, (4, 4, 2), "idle"));
    let output = String::from_utf8_lossy(server.output());
    let refusals: Vec<_> = output.lines().filter(|line| line.as_bytes()[0] > b'3').collect();
    assert_eq!(
        refusals,
        [
            "451 4.3.0 later (id ID1)",
            "500 5.5.1 command not known",
            "552 5.3.4 message too large (id ID2)",
            "503 5.5.1 a sender is needed first",
            "421 4.4.2 idle",
        ]
    );
}

#[test]
fn closing_is_the_last_word() {
    let mut server = Server::new(options(Protocol::Smtp));
    server.output().clear();
    server.close(&Reply::from(&Refusal::ShuttingDown));
    server.close(&Reply::from(&Refusal::Overloaded));
    assert!(server.output().starts_with(b"421 4.3.2 "));
    assert_eq!(server.output().iter().filter(|b| **b == b'\n').count(), 1);
    assert_eq!(server.advance(&mut BytesMut::from(&b"NOOP\r\n"[..])), Event::Close);
}

proptest! {
    /// Whatever comes, in whatever pieces: no panic, the same outcome, and never more messages than exact ends.
    #[test]
    fn any_dialogue_is_the_same_however_it_is_cut(
        words in prop::collection::vec(prop::sample::select(vec![
            "EHLO c\r\n", "LHLO c\r\n", "MAIL FROM:<a@x>\r\n", "RCPT TO:<b@y>\r\n", "DATA\r\n",
            "text\r\n", ".\r\n", "..\r\n", ".", "\r\n", "\n", "\r", "\0", "BDAT 5\r\n",
            "BDAT 3 LAST\r\n", "RSET\r\n", "QUIT\r\n", "NOOP\r\n", "\u{e9}", "x",
        ]), 0..40),
        lmtp in any::<bool>(),
        cuts in prop::collection::vec(0..300_usize, 1..8),
    ) {
        let text = format!("{}{}", if lmtp { "LHLO c\r\n" } else { "EHLO c\r\n" }, words.concat());
        let protocol = if lmtp { Protocol::Lmtp } else { Protocol::Smtp };
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut start = 0;
        for cut in cuts.into_iter().chain([text.len()]) {
            pieces.push(&text.as_bytes()[start..cut]);
            start = cut;
        }
        let whole = play(options(protocol), &[text.as_bytes()]);
        prop_assert_eq!(play(options(protocol), &pieces), whole);
    }
}
