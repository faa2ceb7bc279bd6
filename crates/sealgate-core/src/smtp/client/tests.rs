//! Dialogues with a scripted server, and with our own.

use proptest::prelude::*;

use super::*;
use crate::address::{Address, Domain};
use crate::envelope::{Envelope, MailParameters, Recipient, Ret};
use crate::smtp::server::{self, Limits, Server};

fn options(protocol: Protocol, tls: Tls) -> Options {
    Options { protocol, hostname: "gate.nec.example".to_owned(), tls }
}

fn smtp() -> Client {
    Client::new(options(Protocol::Smtp, Tls::Off))
}

fn recipients(texts: &[&str]) -> Vec<Recipient> {
    texts.iter().map(|text| Recipient::new(Address::parse(text).unwrap())).collect()
}

fn start(client: &mut Client, to: &[Recipient]) -> Result<(), Lack> {
    let parameters = MailParameters::default();
    client.start(&Transaction {
        reverse_path: None,
        parameters: &parameters,
        recipients: to.iter().collect(),
        size_bytes: 3,
        eight_bit: false,
        utf8_header: false,
    })
}

fn sent(client: &mut Client) -> String {
    let octets: Vec<u8> = client.output().drain(..).flatten().collect();
    String::from_utf8(octets).unwrap()
}

/// Events that a server's words cause, until more is needed; the words also come octet by octet.
fn hear(client: &mut Client, words: &str) -> Vec<Event> {
    let mut input = BytesMut::new();
    let mut events = Vec::new();
    for b in words.bytes() {
        input.extend_from_slice(&[b]);
        loop {
            match client.advance(&mut input) {
                Event::NeedInput => break,
                event => events.push(event),
            }
        }
    }
    loop {
        match client.advance(&mut input) {
            Event::NeedInput => return events,
            event => events.push(event),
        }
    }
}

fn idle(client: &mut Client, offers: &str) {
    let events = hear(client, &format!("220 hello\r\n250-b.example\r\n{offers}250 HELP\r\n"));
    assert_eq!(events, [Event::Idle]);
    assert_eq!(sent(client), "EHLO gate.nec.example\r\n");
}

fn codes(replies: &[Reply]) -> Vec<u16> {
    replies.iter().map(|reply| reply.code).collect()
}

fn failure(events: &[Event]) -> &Failure {
    match events.last() {
        Some(Event::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn capabilities_are_read() {
    let mut client = smtp();
    idle(
        &mut client,
        "250-PIPELINING\r\n250-size 1000\r\n250-8BITMIME\r\n250-Dsn\r\n250-SMTPUTF8\r\n",
    );
    let expected = Capabilities {
        dsn: true,
        eight_bit_mime: true,
        pipelining: true,
        requiretls: false,
        size: Some(Some(1000)),
        smtputf8: true,
        starttls: false,
        xclient: XclientAttributes::default(),
    };
    assert_eq!(*client.capabilities(), expected);
}

#[test]
fn commands_go_in_one_group_with_pipelining() {
    let mut client = smtp();
    idle(&mut client, "250-PIPELINING\r\n");
    start(&mut client, &recipients(&["a@x", "b@x"])).unwrap();
    assert_eq!(sent(&mut client), "MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n");
    let events = hear(&mut client, "250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n");
    let [Event::Admitted(replies)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(codes(replies), [250, 550]);
    client.send_content(&[Bytes::from_static(b".x\r\n")]);
    assert_eq!(sent(&mut client), "..x\r\n");
    assert_eq!(hear(&mut client, ""), []);
    client.release();
    assert_eq!(sent(&mut client), ".\r\n");
    let events = hear(&mut client, "250 2.0.0 queued as 1\r\n");
    let reply = Reply::new(250, (2, 0, 0), "queued as 1");
    assert_eq!(events, [Event::Answer { recipient: 0, reply }, Event::Idle]);
    start(&mut client, &recipients(&["c@x"])).unwrap();
    assert!(sent(&mut client).starts_with("MAIL FROM:<>\r\n"), "used again");
}

#[test]
fn commands_go_one_by_one_without_pipelining() {
    let mut client = smtp();
    idle(&mut client, "");
    start(&mut client, &recipients(&["a@x", "b@x"])).unwrap();
    for (command, reply) in [
        ("MAIL FROM:<>\r\n", "250 ok\r\n"),
        ("RCPT TO:<a@x>\r\n", "450 later\r\n"),
        ("RCPT TO:<b@x>\r\n", "250 ok\r\n"),
        ("DATA\r\n", ""),
    ] {
        assert_eq!(sent(&mut client), command);
        assert_eq!(hear(&mut client, reply), []);
    }
    let events = hear(&mut client, "354 go\r\n");
    assert!(matches!(&events[..], [Event::Admitted(replies)] if codes(replies) == [450, 250]));
    client.send_content(&[]);
    client.release();
    assert_eq!(sent(&mut client), ".\r\n");
    let events = hear(&mut client, "554 no\r\n");
    assert!(matches!(&events[..], [Event::Answer { recipient: 1, reply }, Event::Idle]
        if reply.code == 554));
}

#[test]
fn a_552_at_rcpt_is_no_last_word_unless_it_is_about_mailbox_or_size() {
    for (says, code) in [
        ("552 too many recipients\r\n", 452),
        ("552 5.5.3 too many recipients\r\n", 452),
        ("552 5.2.2 over quota\r\n", 552),
        ("552 5.3.4 too large\r\n", 552),
    ] {
        for is_said_at_mail in [false, true] {
            let mut client = smtp();
            idle(&mut client, "");
            start(&mut client, &recipients(&["a@x"])).unwrap();
            if !is_said_at_mail {
                hear(&mut client, "250 ok\r\n");
            }
            let events = hear(&mut client, says);
            let expected = if is_said_at_mail { 552 } else { code };
            assert!(
                matches!(&events[..], [Event::Refused(replies)] if codes(replies) == [expected]),
                "{says} {events:?}"
            );
        }
    }
}

#[test]
fn nobody_admitted_without_pipelining_sends_no_data() {
    for replies in [&["550 no\r\n"][..], &["250 ok\r\n", "550 no\r\n"]] {
        let mut client = smtp();
        idle(&mut client, "");
        start(&mut client, &recipients(&["a@x"])).unwrap();
        let mut events = Vec::new();
        for reply in replies {
            sent(&mut client);
            events = hear(&mut client, reply);
        }
        assert!(matches!(&events[..], [Event::Refused(replies)] if codes(replies) == [550]));
        assert_eq!(sent(&mut client), "RSET\r\n");
        assert_eq!(hear(&mut client, "250 ok\r\n"), [Event::Idle]);
    }
}

#[test]
fn nobody_admitted_with_pipelining_leaves_the_connection_usable() {
    for (words, sent_next, expected) in [
        ("550 5.7.1 no\r\n503 x\r\n503 x\r\n503 x\r\n", "RSET\r\n", [550, 550]),
        ("250 ok\r\n550 a\r\n450 b\r\n554 none\r\n", "RSET\r\n", [550, 450]),
        ("250 ok\r\n550 a\r\n250 b\r\n451 later\r\n", "RSET\r\n", [550, 451]),
    ] {
        let mut client = smtp();
        idle(&mut client, "250-PIPELINING\r\n");
        start(&mut client, &recipients(&["a@x", "b@x"])).unwrap();
        sent(&mut client);
        let events = hear(&mut client, words);
        assert!(
            matches!(&events[..], [Event::Refused(replies)] if codes(replies) == expected),
            "{words}: {events:?}"
        );
        assert_eq!(sent(&mut client), sent_next);
        assert_eq!(hear(&mut client, "250 ok\r\n"), [Event::Idle]);
    }
}

/// A server that keeps the envelope calls the next one nested (503), which would bounce somebody else's mail.
#[test]
fn a_refused_reset_ends_the_connection() {
    for pipelining in ["", "250-PIPELINING\r\n"] {
        for answer in ["450 busy\r\n", "554 whatever\r\n"] {
            let mut client = smtp();
            idle(&mut client, pipelining);
            start(&mut client, &recipients(&["a@x"])).unwrap();
            let words = match pipelining {
                "" => "250 ok\r\n550 no\r\n",
                _ => "250 ok\r\n550 no\r\n554 none\r\n",
            };
            let events = hear(&mut client, words);
            assert!(matches!(&events[..], [Event::Refused(_)]), "{events:?}");
            assert!(sent(&mut client).ends_with("RSET\r\n"));
            assert_eq!(hear(&mut client, answer), [Event::Failed(Failure::Garbage)]);
            assert!(!client.is_idle());
        }
    }
}

#[test]
fn content_for_nobody_is_never_sent() {
    for words in
        ["250 ok\r\n550 a\r\n450 b\r\n354 go\r\n", "550 no\r\n250 ok\r\n250 ok\r\n354 go\r\n"]
    {
        let mut client = smtp();
        idle(&mut client, "250-PIPELINING\r\n");
        start(&mut client, &recipients(&["a@x", "b@x"])).unwrap();
        sent(&mut client);
        let events = hear(&mut client, words);
        assert!(matches!(&events[..], [Event::Refused(_), Event::Failed(_)]), "{events:?}");
        assert_eq!(sent(&mut client), "", "no dot, which could be an empty message");
    }
}

#[test]
fn lmtp_answers_come_one_by_one() {
    let mut client = Client::new(options(Protocol::Lmtp, Tls::Off));
    hear(&mut client, "220 hi\r\n250-b\r\n250 PIPELINING\r\n");
    assert_eq!(sent(&mut client), "LHLO gate.nec.example\r\n");
    start(&mut client, &recipients(&["a@x", "b@x", "c@x"])).unwrap();
    hear(&mut client, "250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n");
    client.send_content(&[]);
    client.release();
    let events = hear(&mut client, "250 ok\r\n");
    assert!(matches!(&events[..], [Event::Answer { recipient: 0, .. }]));
    let events = hear(&mut client, "452 full\r\n");
    assert!(matches!(&events[..], [Event::Answer { recipient: 2, reply }, Event::Idle]
        if reply.code == 452));
}

#[test]
fn helo_is_the_fallback_and_lmtp_has_none() {
    let mut client = smtp();
    assert_eq!(hear(&mut client, "220 old\r\n500 what\r\n"), []);
    assert_eq!(sent(&mut client), "EHLO gate.nec.example\r\nHELO gate.nec.example\r\n");
    assert_eq!(hear(&mut client, "250 hi\r\n"), [Event::Idle]);
    assert_eq!(*client.capabilities(), Capabilities::default());
    let mut client = Client::new(options(Protocol::Lmtp, Tls::Off));
    assert!(matches!(failure(&hear(&mut client, "220 x\r\n500 no\r\n")), Failure::Refused(_)));
}

#[test]
fn tls_starts_where_it_is_offered() {
    for tls in [Tls::IfOffered, Tls::Required] {
        let mut client = Client::new(options(Protocol::Smtp, tls));
        assert_eq!(hear(&mut client, "220 x\r\n250-b\r\n250 STARTTLS\r\n"), []);
        assert!(sent(&mut client).ends_with("STARTTLS\r\n"));
        let mut input = BytesMut::from(&b"220 go\r\n250-evil\r\n250 SMTPUTF8\r\n"[..]);
        assert_eq!(client.advance(&mut input), Event::StartTls);
        assert!(input.is_empty(), "what came before the handshake is discarded");
        client.tls_started();
        assert_eq!(sent(&mut client), "EHLO gate.nec.example\r\n");
        assert_eq!(hear(&mut client, "250-b\r\n250 SIZE\r\n"), [Event::Idle]);
        assert_eq!(client.capabilities().size, Some(None));
        assert!(client.is_tls() && !client.capabilities().smtputf8);
    }
}

#[test]
fn tls_that_is_required_is_insisted_on() {
    for (words, is_refused) in
        [("250 b\r\n", false), ("250-b\r\n250 STARTTLS\r\n454 not now\r\n", true)]
    {
        let mut client = Client::new(options(Protocol::Smtp, Tls::Required));
        let events = hear(&mut client, &format!("220 x\r\n{words}"));
        match failure(&events) {
            Failure::TlsRefused(reply) => assert!(is_refused && reply.code == 454),
            other => assert!(!is_refused && *other == Failure::TlsNotOffered, "{other:?}"),
        }
        let mut client = Client::new(options(Protocol::Smtp, Tls::IfOffered));
        assert_eq!(hear(&mut client, &format!("220 x\r\n{words}")), [Event::Idle]);
        assert_eq!(client.is_tls_refused(), is_refused);
    }
    let mut client = Client::new(options(Protocol::Smtp, Tls::Off));
    assert_eq!(hear(&mut client, "220 x\r\n250-b\r\n250 STARTTLS\r\n"), [Event::Idle]);
}

#[test]
fn what_the_server_lacks_is_told_before_anything_is_sent() {
    let utf8 = MailParameters { smtputf8: true, ..MailParameters::default() };
    let plain = MailParameters { eight_bit: true, ..MailParameters::default() };
    let to = recipients(&["a@x"]);
    let utf8_to = recipients(&["j\u{f6}rg@x"]);
    let transaction = |parameters, to: &'static [Recipient], size_bytes, eight_bit| Transaction {
        reverse_path: None,
        parameters,
        recipients: to.iter().collect(),
        size_bytes,
        eight_bit,
        utf8_header: false,
    };
    let (utf8, plain) = (Box::leak(Box::new(utf8)), Box::leak(Box::new(plain)));
    let (to, utf8_to) = (to.leak(), utf8_to.leak());
    let utf8_lack = Some(Lack::Extension(Extension::SmtpUtf8));
    let table = [
        (transaction(utf8, to, 1, false), None),
        (Transaction { utf8_header: true, ..transaction(utf8, to, 1, false) }, utf8_lack),
        (transaction(plain, utf8_to, 1, false), utf8_lack),
        (transaction(plain, to, 1, true), Some(Lack::Extension(Extension::EightBitMime))),
        (transaction(plain, to, 11, false), Some(Lack::Size)),
        (transaction(plain, to, 10, false), None),
    ];
    for (transaction, lack) in table {
        let mut client = smtp();
        idle(&mut client, "250-SIZE 10\r\n");
        assert_eq!(client.start(&transaction).err(), lack);
        assert_eq!(sent(&mut client).is_empty(), lack.is_some());
    }
}

/// RFC 6531 §3.4: some clients say SMTPUTF8 wherever it is offered.
#[test]
fn smtputf8_is_said_where_it_is_offered_and_missed_only_where_it_is_needed() {
    let parameters = MailParameters { smtputf8: true, ..MailParameters::default() };
    let to = recipients(&["a@x"]);
    for (offer, said) in
        [("250-SMTPUTF8\r\n", "MAIL FROM:<> SMTPUTF8\r\n"), ("", "MAIL FROM:<>\r\n")]
    {
        let mut client = smtp();
        idle(&mut client, offer);
        let transaction = Transaction {
            reverse_path: None,
            parameters: &parameters,
            recipients: to.iter().collect(),
            size_bytes: 0,
            eight_bit: false,
            utf8_header: false,
        };
        client.start(&transaction).unwrap();
        assert_eq!(sent(&mut client), said);
    }
}

#[test]
fn mail_that_requires_tls_goes_only_to_those_who_offer_that_within_tls() {
    let parameters = MailParameters { requiretls: true, ..MailParameters::default() };
    let to = recipients(&["a@x"]);
    let transaction = Transaction {
        reverse_path: None,
        parameters: &parameters,
        recipients: to.iter().collect(),
        size_bytes: 3,
        eight_bit: false,
        utf8_header: false,
    };
    let lack = Some(Lack::Extension(Extension::RequireTls));
    let mut plain = smtp();
    idle(&mut plain, "250-REQUIRETLS\r\n");
    assert_eq!(plain.start(&transaction).err(), lack);
    for (offer, lack) in [("250-REQUIRETLS\r\n", None), ("", lack)] {
        let mut client = Client::new(options(Protocol::Smtp, Tls::Required));
        hear(&mut client, "220 hello\r\n250-b.example\r\n250 STARTTLS\r\n220 go on\r\n");
        client.tls_started();
        assert_eq!(
            hear(&mut client, &format!("250-b.example\r\n{offer}250 HELP\r\n")),
            [Event::Idle]
        );
        sent(&mut client);
        assert_eq!(client.start(&transaction).err(), lack);
        assert_eq!(sent(&mut client).contains("MAIL FROM:<> REQUIRETLS\r\n"), lack.is_none());
    }
}

#[test]
fn parameters_go_only_to_those_who_know_them() {
    let parameters = MailParameters {
        size_bytes: Some(7),
        eight_bit: true,
        smtputf8: false,
        requiretls: false,
        ret: Some(Ret::Headers),
        envid: Some("e+2B".to_owned()),
    };
    let mut to = recipients(&["a@x"]);
    to[0].notify = Some("FAILURE,DELAY".to_owned());
    to[0].orcpt = Some("rfc822;A@x".to_owned());
    let from = Address::parse("me@nec.example").unwrap();
    let transaction = Transaction {
        reverse_path: Some(&from),
        parameters: &parameters,
        recipients: to.iter().collect(),
        size_bytes: 99,
        eight_bit: false,
        utf8_header: false,
    };
    let mut client = smtp();
    idle(&mut client, "250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n250-DSN\r\n");
    client.start(&transaction).unwrap();
    assert_eq!(
        sent(&mut client),
        "MAIL FROM:<me@nec.example> SIZE=99 BODY=8BITMIME RET=HDRS ENVID=e+2B\r\n\
         RCPT TO:<a@x> NOTIFY=FAILURE,DELAY ORCPT=rfc822;A@x\r\nDATA\r\n"
    );
    let mut client = smtp();
    idle(&mut client, "250-PIPELINING\r\n");
    client.start(&transaction).unwrap();
    assert_eq!(sent(&mut client), "MAIL FROM:<me@nec.example>\r\nRCPT TO:<a@x>\r\nDATA\r\n");
}

#[test]
fn a_421_answers_whatever_is_open() {
    let mut client = smtp();
    assert!(matches!(failure(&hear(&mut client, "421 busy\r\n")), Failure::Refused(_)));
    for (words, expected) in [
        ("421 bye\r\n", [421, 421]),
        ("250 ok\r\n421 bye\r\n", [421, 421]),
        ("250 ok\r\n550 no\r\n421 bye\r\n", [550, 421]),
        ("250 ok\r\n550 no\r\n250 ok\r\n421 bye\r\n", [550, 421]),
    ] {
        let mut client = smtp();
        idle(&mut client, "250-PIPELINING\r\n");
        start(&mut client, &recipients(&["a@x", "b@x"])).unwrap();
        let events = hear(&mut client, words);
        let [Event::Refused(replies), Event::Failed(Failure::Closing(_))] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(codes(replies), expected, "{words}");
    }
    let mut client = smtp();
    idle(&mut client, "");
    assert!(matches!(failure(&hear(&mut client, "421 idle\r\n")), Failure::Closing(_)));
}

#[test]
fn a_421_after_the_dot_answers_all_that_are_left() {
    let mut client = Client::new(options(Protocol::Lmtp, Tls::Off));
    hear(&mut client, "220 hi\r\n250-b\r\n250 PIPELINING\r\n");
    start(&mut client, &recipients(&["a@x", "b@x", "c@x"])).unwrap();
    hear(&mut client, "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    client.send_content(&[]);
    client.release();
    let events = hear(&mut client, "250 ok\r\n421 bye\r\n");
    let answers: Vec<(usize, u16)> = events
        .iter()
        .filter_map(|event| match event {
            Event::Answer { recipient, reply } => Some((*recipient, reply.code)),
            _ => None,
        })
        .collect();
    assert_eq!(answers, [(0, 250), (1, 421), (2, 421)]);
    assert!(matches!(failure(&events), Failure::Closing(_)));
}

#[test]
fn a_refusal_in_the_middle_of_content_holds() {
    let mut client = smtp();
    idle(&mut client, "250-PIPELINING\r\n");
    start(&mut client, &recipients(&["a@x"])).unwrap();
    hear(&mut client, "250 ok\r\n250 ok\r\n354 go\r\n");
    client.send_content(&[Bytes::from_static(b"x\r\n")]);
    let events = hear(&mut client, "552 5.3.4 too much\r\n");
    assert!(matches!(&events[0], Event::Answer { recipient: 0, reply } if reply.code == 552));
    assert!(matches!(failure(&events), Failure::Closing(_)));
    client.output().clear();
    client.release();
    assert!(client.output().is_empty(), "no dot follows");
}

#[test]
fn garbage_is_the_end() {
    for words in ["SSH-2.0-x\r\n", "220 a\r\n250-x\r\n251 y\r\n", "220 a\r\n250 b\r\n250 c\r\n"] {
        assert_eq!(*failure(&hear(&mut smtp(), words)), Failure::Garbage, "{words}");
    }
    let mut client = smtp();
    idle(&mut client, "250-PIPELINING\r\n");
    start(&mut client, &recipients(&["a@x"])).unwrap();
    hear(&mut client, "250 ok\r\n250 ok\r\n354 go\r\n");
    client.send_content(&[]);
    assert_eq!(*failure(&hear(&mut client, "250 accepted already\r\n")), Failure::Garbage);
}

#[test]
fn quitting_ends_politely() {
    let mut client = smtp();
    idle(&mut client, "");
    client.quit();
    assert_eq!(sent(&mut client), "QUIT\r\n");
    assert!(matches!(failure(&hear(&mut client, "221 bye\r\n")), Failure::Closing(_)));
    assert!(!client.is_idle());
}

/// Two messages over one connection from our client to our server; what the server got.
fn through_both(protocol: Protocol, message: &[Bytes], piece: usize) -> Vec<(Envelope, Bytes)> {
    let mut server = Server::new(server::Options {
        protocol,
        hostname: Domain::parse("b.example").unwrap(),
        postmaster_domain: Domain::parse("b.example").unwrap(),
        starttls: server::StartTls::Absent,
        smtputf8: true,
        dsn: true,
        requiretls: false,
        limits: Limits::default(),
    });
    let mut client = Client::new(options(protocol, Tls::IfOffered));
    let to = recipients(&["a@x", "b@x"]);
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    let mut arrived = Vec::new();
    let mut begun = 0;
    let mut answers = 0;
    loop {
        match client.advance(&mut to_client) {
            Event::Idle if begun == 2 => break,
            Event::Idle => {
                begun += 1;
                start(&mut client, &to).unwrap();
            }
            Event::Admitted(replies) => {
                assert!(replies.iter().all(Reply::is_positive));
                client.send_content(message);
                client.release();
            }
            Event::Answer { reply, .. } => answers += usize::from(reply.is_positive()),
            Event::NeedInput => {
                let wire: Vec<u8> = client.output().drain(..).flatten().collect();
                for octets in wire.chunks(piece.max(1)) {
                    to_server.extend_from_slice(octets);
                    serve(&mut server, &mut to_server, &mut arrived);
                }
                serve(&mut server, &mut to_server, &mut arrived);
                to_client.extend_from_slice(&server.output().split());
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers, 4);
    arrived
}

fn serve(server: &mut Server, input: &mut BytesMut, arrived: &mut Vec<(Envelope, Bytes)>) {
    loop {
        match server.advance(input) {
            server::Event::NeedInput => return,
            server::Event::Message(message) => {
                arrived.push(*message);
                while server.replies_owed() > 0 {
                    server.answer(&Reply::new(250, (2, 0, 0), "stored"));
                }
            }
            server::Event::Mail { .. } | server::Event::Recipient(_) | server::Event::Data => {
                server.accept()
            }
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn any_message_passes_through_both_sides_unchanged(
        lines in prop::collection::vec("[.a\u{e9} ]{0,6}", 0..40),
        cuts in prop::collection::vec(0..400_usize, 0..4),
        piece in 1..50_usize,
        lmtp in any::<bool>(),
    ) {
        let message: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (*cut).min(message.len())).collect();
        cuts.sort_unstable();
        let mut segments = Vec::new();
        let mut begin = 0;
        for cut in cuts.into_iter().chain([message.len()]) {
            segments.push(Bytes::copy_from_slice(&message.as_bytes()[begin..cut]));
            begin = cut;
        }
        let protocol = if lmtp { Protocol::Lmtp } else { Protocol::Smtp };
        let arrived = through_both(protocol, &segments, piece);
        prop_assert_eq!(arrived.len(), 2);
        for (envelope, content) in arrived {
            prop_assert_eq!(envelope.recipients.len(), 2);
            prop_assert_eq!(&content[..], message.as_bytes());
        }
    }

    /// Whatever a server says, in whatever state: no panic, and an end or a wait.
    #[test]
    fn any_server_is_borne(
        words in prop::collection::vec(prop::sample::select(vec![
            "220 a\r\n", "250 a\r\n", "250-a\r\n", "250 PIPELINING\r\n", "354 a\r\n", "421 a\r\n",
            "450 a\r\n", "550 5.1.1 a\r\n", "\r\n", "\n", "x", "250 STARTTLS\r\n", "999 a\r\n",
        ]), 0..30),
        lmtp in any::<bool>(),
    ) {
        let protocol = if lmtp { Protocol::Lmtp } else { Protocol::Smtp };
        let mut client = Client::new(options(protocol, Tls::IfOffered));
        let to = recipients(&["a@x", "b@x"]);
        let mut input = BytesMut::from(words.concat().as_bytes());
        let mut events = 0;
        loop {
            events += 1;
            prop_assert!(events < 1000);
            match client.advance(&mut input) {
                Event::Idle => start(&mut client, &to).unwrap(),
                Event::Admitted(replies) => {
                    prop_assert!(replies.len() == 2 && replies.iter().any(Reply::is_positive));
                    client.send_content(&[]);
                    client.release();
                }
                Event::Refused(replies) => {
                    prop_assert!(replies.len() == 2 && !replies.iter().any(Reply::is_positive));
                }
                Event::StartTls => {
                    prop_assert!(input.is_empty());
                    client.tls_started();
                }
                Event::Answer { recipient, .. } => prop_assert!(recipient < 2),
                Event::Checked(_) => prop_assert!(false, "nothing was asked"),
                Event::Failed(_) | Event::NeedInput => break,
            }
        }
    }
}

fn check(client: &mut Client, to: &[Recipient]) {
    let parameters = MailParameters::default();
    let transaction = Transaction {
        reverse_path: None,
        parameters: &parameters,
        recipients: to.iter().collect(),
        size_bytes: 0,
        eight_bit: false,
        utf8_header: false,
    };
    client.check(&transaction).unwrap();
}

#[test]
fn a_check_of_recipients_is_taken_back() {
    let to = recipients(&["a@x", "b@x"]);
    let mut client = smtp();
    idle(&mut client, "250-PIPELINING\r\n250-SIZE 10\r\n");
    check(&mut client, &to);
    assert_eq!(sent(&mut client), "MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nRSET\r\n");
    let events = hear(&mut client, "250 ok\r\n550 5.1.1 no\r\n250 ok\r\n250 ok\r\n");
    let [Event::Checked(replies), Event::Idle] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(replies.iter().map(|reply| reply.code).collect::<Vec<_>>(), [550, 250]);

    // Without pipelining nothing is asked that has become pointless.
    let mut client = smtp();
    idle(&mut client, "");
    check(&mut client, &to);
    let _ = sent(&mut client);
    hear(&mut client, "451 4.7.1 later\r\n");
    assert_eq!(sent(&mut client), "RSET\r\n");
    // 421 at any point is the answer of all who have none, and the end.
    let mut client = smtp();
    idle(&mut client, "250-PIPELINING\r\n");
    check(&mut client, &to);
    let events = hear(&mut client, "250 ok\r\n550 no\r\n421 4.3.2 closing\r\n");
    let [Event::Refused(replies), Event::Failed(_)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(codes(replies), [550, 421]);
}

#[test]
fn what_a_check_found_does_not_wait_for_its_end() {
    let to = recipients(&["a@x", "b@x"]);
    for (offers, end) in [("250-PIPELINING\r\n", 0), ("250-PIPELINING\r\n", 1), ("", 0), ("", 1)] {
        let mut client = smtp();
        idle(&mut client, offers);
        check(&mut client, &to);
        let mut events = Vec::new();
        for words in ["250 ok\r\n", "550 5.1.1 no\r\n", "250 ok\r\n"] {
            assert_eq!(events, []);
            events = hear(&mut client, words);
        }
        let [Event::Checked(replies)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(codes(replies), [550, 250]);
        assert!(sent(&mut client).ends_with("RSET\r\n"));
        let (words, usable) = [("250 ok\r\n", true), ("421 4.3.2 closing\r\n", false)][end];
        let events = hear(&mut client, words);
        let is_as_it_should = match events.as_slice() {
            [Event::Idle] => usable,
            [Event::Failed(Failure::Closing(_))] => !usable,
            _ => false,
        };
        assert!(is_as_it_should, "{words} {events:?}");
    }
}

/// RFC 6533 §3: with octets above 127 an address may stand in ORCPT only where SMTPUTF8 is said.
#[test]
fn an_original_recipient_is_in_ascii_where_smtputf8_is_not_said() {
    const UTF8: &str = "utf-8;j\u{f6}rg\\x{2B}1+2Bx@abc.example";
    const ASCII: &str = "utf-8;j\\x{F6}rg\\x{2B}1+2Bx@abc.example";
    for (offers, to, asks, expected) in [
        ("250-DSN\r\n", "a@x", false, ASCII),
        ("250-DSN\r\n", "a@x", true, ASCII),
        ("250-DSN\r\n250-SMTPUTF8\r\n", "a@x", false, ASCII),
        ("250-DSN\r\n250-SMTPUTF8\r\n", "a@x", true, UTF8),
        ("250-DSN\r\n250-SMTPUTF8\r\n", "\u{f6}@x", false, UTF8),
    ] {
        let mut client = smtp();
        idle(&mut client, &format!("250-PIPELINING\r\n{offers}"));
        let mut recipient = Recipient::new(Address::parse(to).unwrap());
        recipient.orcpt = Some(UTF8.to_owned());
        let parameters = MailParameters { smtputf8: asks, ..MailParameters::default() };
        let transaction = Transaction {
            reverse_path: None,
            parameters: &parameters,
            recipients: vec![&recipient],
            size_bytes: 3,
            eight_bit: false,
            utf8_header: false,
        };
        client.start(&transaction).unwrap();
        let sent = sent(&mut client);
        assert!(sent.contains(&format!("RCPT TO:<{to}> ORCPT={expected}\r\n")), "{sent}");
        assert_eq!(sent.contains(" SMTPUTF8"), expected == UTF8, "{sent}");
    }
}

#[test]
fn an_original_recipient_that_is_too_long_in_ascii_is_left_out() {
    let mut client = smtp();
    idle(&mut client, "250-PIPELINING\r\n250-DSN\r\n");
    let mut to = recipients(&["a@x"]);
    to[0].orcpt = Some(format!("utf-8;{}@abc.example", "\u{f6}".repeat(100)));
    start(&mut client, &to).unwrap();
    assert!(sent(&mut client).contains("RCPT TO:<a@x>\r\n"));
}

#[test]
fn a_client_is_introduced_and_greeted_anew() {
    let identity = Identity {
        address: "192.0.2.7:4025".parse().unwrap(),
        name: ClientName::Unavailable,
        hello: "mx.abc.example".to_owned(),
        extended: true,
    };
    let mut client = smtp();
    idle(&mut client, "250-XCLIENT NAME ADDR HELO\r\n");
    client.introduce(&identity);
    let said = sent(&mut client);
    assert_eq!(said, "XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE] HELO=mx.abc.example\r\n");
    assert!(hear(&mut client, "220 b.example\r\n").is_empty());
    assert_eq!(sent(&mut client), "EHLO mx.abc.example\r\n");
    assert_eq!(hear(&mut client, "250-b.example\r\n250 SIZE\r\n"), [Event::Idle]);

    // Where it is not offered, or refused, the connection is of no use.
    let mut client = smtp();
    idle(&mut client, "");
    client.introduce(&identity);
    assert_eq!(hear(&mut client, ""), [Event::Failed(Failure::XclientNotOffered)]);
    let mut client = smtp();
    idle(&mut client, "250-XCLIENT ADDR\r\n");
    client.introduce(&identity);
    let events = hear(&mut client, "550 5.7.0 not you\r\n");
    assert!(matches!(events.as_slice(), [Event::Failed(Failure::Refused(_))]), "{events:?}");
}
