//! Outcomes of several copies, against scripted servers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sealgate_core::address::Address;
use sealgate_core::envelope::{MailParameters, Recipient};
use sealgate_core::report::Delivered;
use sealgate_core::smtp::client::{ClientName, Identity};
use sealgate_testkit::sink::{Protocol as SinkProtocol, Sink, Stage};
use tokio::sync::mpsc;

use super::super::connect::tests::hop;
use super::super::hops::Hops;
use super::super::route::Router;
use super::super::settle::{Outcomes, Tally};
use super::*;
use crate::config::{Dns, Resolvers, Server};

mod large;

/// A server that gives these answers in turn at RCPT and at the dot (empty: the usual), and the stages it saw.
fn server(rcpts: &'static [&str], dots: &'static [&str]) -> (Sink, Arc<Mutex<Vec<char>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let stages = Arc::clone(&seen);
    let turns = Mutex::new((rcpts.iter(), dots.iter()));
    let sink = Sink::scripted(SinkProtocol::Smtp, move |stage| {
        let mut turns = turns.lock().unwrap();
        let (letter, answer) = match stage {
            Stage::Rcpt(_) => ('r', turns.0.next()),
            Stage::Dot(_) => ('.', turns.1.next()),
            Stage::Data => ('d', None),
            _ => return None,
        };
        stages.lock().unwrap().push(letter);
        answer.filter(|text| !text.is_empty()).map(|text| format!("{text}\r\n"))
    });
    (sink, seen)
}

fn downstream() -> Downstream {
    let dns = Dns { resolvers: Resolvers::Servers(Vec::new()), dnssec: false, trust_anchor: None };
    let router = Router::new(&dns, None, "gate.nec.example").unwrap();
    Downstream::new(router, "gate.nec.example".to_owned(), Hops::new(9))
}

/// Delivers two copies for one recipient each.
async fn deliver(sink: &Sink, upstream: Protocol, content: &'static [u8]) -> (Outcomes, bool) {
    let what = (Direction::Outbound, Delivered::Sealed, true);
    deliver_as(what, sink.address, upstream, content).await
}

async fn deliver_this_way(
    way: Way,
    server: SocketAddr,
    upstream: Protocol,
    content: &'static [u8],
) -> (Outcomes, bool) {
    let downstream = downstream();
    let server: Server = format!("smtp://{server}").parse().unwrap();
    let to = |text| Recipient::new(Address::parse(text).unwrap());
    let envelope = Envelope {
        reverse_path: None,
        recipients: vec![to("a@abc.example"), to("b@abc.example")],
        parameters: MailParameters::default(),
    };
    let parcel = |index| Parcel {
        recipients: vec![index],
        message: vec![Bytes::from_static(content)],
        delivered: way.delivered[index],
        eight_bit: false,
    };
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let released = AtomicBool::new(false);
    let fanout = Fanout {
        downstream: &downstream,
        next_hop: &NextHop::Fixed(server),
        recipients: None,
        introduction: None,
        transport: &Transport::default(),
        direction: way.direction,
        envelope: &envelope,
        served: &[false, false],
        deferred: &[],
        remembers: way.remembers,
        deadline: Instant::now() + Duration::from_secs(20),
        answer_deadline: Instant::now() + Duration::from_secs(20),
        opened: way.opened,
        announced_bytes: way.announced_bytes,
        judges_hops: true,
        released: &released,
        answers: sender,
    };
    fanout.deliver(upstream, &[parcel(0), parcel(1)]).await;
    let mut outcomes = vec![None; 2];
    while let Ok((index, outcome)) = receiver.try_recv() {
        outcomes[index].get_or_insert(outcome);
    }
    (outcomes, released.load(Ordering::Acquire))
}

/// What is said of two copies.
struct Way {
    direction: Direction,
    delivered: [Delivered; 2],
    remembers: bool,
    opened: bool,
    announced_bytes: usize,
}

async fn deliver_as(
    (direction, delivered, remembers): (Direction, Delivered, bool),
    server: SocketAddr,
    upstream: Protocol,
    content: &'static [u8],
) -> (Outcomes, bool) {
    let way = Way {
        direction,
        delivered: [delivered; 2],
        remembers,
        opened: direction == Direction::Inbound && delivered == Delivered::Plain,
        announced_bytes: 0,
    };
    deliver_this_way(way, server, upstream, content).await
}

fn code(outcomes: &[Option<Result<Reply, Refusal>>]) -> (u16, bool) {
    let (result, partial) = Tally::of(outcomes).into_result();
    let code = result.map_or_else(|refusal| Reply::from(&refusal).code, |reply| reply.code);
    (code, partial)
}

const CONTENT: &[u8] = b"Subject: x\r\n\r\nx\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn all_contents_are_sent_before_the_first_dot() {
    let (sink, seen) = server(&[], &[]);
    let (outcomes, released) = deliver(&sink, Protocol::Smtp, CONTENT).await;
    assert_eq!(code(&outcomes), (250, false));
    assert!(released);
    let seen: String = seen.lock().unwrap().iter().collect();
    assert_eq!(seen.find('.'), Some(4), "{seen}");
    assert_eq!(sink.received().len(), 2);
    assert!(sink.received().iter().all(|received| received.content == CONTENT));
}

#[test]
fn only_connections_to_one_hop_are_scarce() {
    let hops: Vec<Hop> =
        (1..=20).map(|port| hop(([127, 0, 0, 1], port).into(), Demand::default())).collect();
    let together = |which: &[usize], connections_max| {
        first_together(which.iter().map(|index| &hops[*index]), connections_max)
    };
    assert_eq!(together(&[0, 1, 2], 1), 3);
    assert_eq!(together(&[0, 0, 1], 1), 1);
    assert_eq!(together(&[0, 1, 0, 1, 0, 2], 2), 4);
    assert_eq!(together(&[0; 20], 20), HELD_MAX);
    let all: Vec<usize> = (0..20).collect();
    assert_eq!(together(&all, 1), HELD_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_before_the_dots_holds_nobody_back() {
    for (answer, expected) in [("550 5.1.1 no", 550), ("450 4.2.1 later", 450)] {
        let answers: &'static [&str] = Box::leak(Box::new(["", answer]));
        let (sink, _) = server(answers, &[]);
        let (outcomes, released) = deliver(&sink, Protocol::Smtp, CONTENT).await;
        assert_eq!(code(&outcomes), (expected, true));
        assert!(released);
        assert_eq!(sink.received().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_put_right_holds_back_everything() {
    for (answer, direction, remembers, received) in [
        ("550 5.1.1 no", Direction::Inbound, true, 0),
        ("450 4.2.1 later", Direction::Inbound, true, 1),
        ("450 4.2.1 later", Direction::Outbound, false, 0),
        ("550 5.1.1 no", Direction::Outbound, false, 1),
    ] {
        let answers: &'static [&str] = Box::leak(Box::new(["", answer]));
        let (sink, _) = server(answers, &[]);
        let what = (direction, Delivered::Sealed, remembers);
        let (outcomes, released) = deliver_as(what, sink.address, Protocol::Smtp, CONTENT).await;
        assert_eq!(released, received > 0, "{answer} {direction:?}");
        assert_eq!(code(&outcomes).1, received > 0, "{answer} {direction:?}");
        assert_eq!(sink.received().len(), received, "{answer} {direction:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_a_dot_stops_nobody_else() {
    for (answers, expected) in [
        (&["550 5.7.1 no"][..], 550),
        (&["451 4.0.0 later"], 451),
        (&["", "550 5.7.1 no"], 550),
        (&["", "451 4.0.0 later"], 451),
    ] {
        let (sink, _) = server(&[], answers);
        let (outcomes, _) = deliver(&sink, Protocol::Smtp, CONTENT).await;
        assert_eq!(code(&outcomes), (expected, true));
        assert_eq!(sink.received().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_the_first_dot_that_could_not_be_put_right_holds_back_the_others() {
    let refused = (&["550 5.7.1 no"][..], 550);
    let deferred = (&["451 4.0.0 later"][..], 451);
    for ((answers, code_of_all), direction, remembers, received) in [
        (refused, Direction::Inbound, true, 0),
        (deferred, Direction::Outbound, false, 0),
        // These can be put right: by a notification, by the done-record.
        (refused, Direction::Outbound, true, 1),
        (deferred, Direction::Inbound, true, 1),
        // Somebody has it: the others get it too.
        ((&["", "550 5.7.1 no"], 550), Direction::Inbound, true, 1),
        ((&["", "451 4.0.0 later"], 451), Direction::Outbound, false, 1),
    ] {
        let (sink, seen) = server(&[], answers);
        let what = (direction, Delivered::Sealed, remembers);
        let (outcomes, _) = deliver_as(what, sink.address, Protocol::Smtp, CONTENT).await;
        assert_eq!(code(&outcomes), (code_of_all, received > 0), "{answers:?} {direction:?}");
        assert_eq!(sink.received().len(), received, "{answers:?} {direction:?}");
        let dots = seen.lock().unwrap().iter().filter(|stage| **stage == '.').count();
        assert_eq!(dots, 1 + received, "{answers:?} {direction:?}");
    }
}

/// A server that goes away in the content of its first mail and takes the second; how many it has taken.
fn server_that_goes_away_once() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let (counted, to_break) = (Arc::clone(&taken), Arc::new(AtomicBool::new(true)));
    let serve = move |stream: TcpStream| {
        let mut out = stream.try_clone().unwrap();
        let mut say = |text: &str| out.write_all(text.as_bytes()).is_ok();
        let mut in_content = false;
        say("220 sink.example\r\n");
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let more = match line.as_slice() {
                b".\r" => {
                    counted.fetch_add(1, Ordering::AcqRel);
                    in_content = false;
                    say("250 taken\r\n")
                }
                _ if in_content => true,
                b"DATA\r" if to_break.swap(false, Ordering::AcqRel) => {
                    say("354 go\r\n");
                    false
                }
                b"DATA\r" => {
                    in_content = true;
                    say("354 go\r\n")
                }
                _ => say("250 yes\r\n"),
            };
            if !more {
                break;
            }
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    (address, taken)
}

/// A server that knows XCLIENT and takes nobody's mail for now, as a policy daemon does that limits one client.
fn server_that_says_421_to_mail() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = |stream: TcpStream| {
        let mut out = stream.try_clone().unwrap();
        let mut say = |text: &str| out.write_all(text.as_bytes()).is_ok();
        say("220 sink.example\r\n");
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let more = match line.split(' ').next() {
                Some("EHLO") => say("250-sink.example\r\n250 XCLIENT NAME ADDR HELO\r\n"),
                Some("XCLIENT") => say("220 sink.example\r\n"),
                _ => {
                    say("421 4.7.0 not you\r\n");
                    false
                }
            };
            if !more {
                break;
            }
        }
    };
    std::thread::spawn(move || listener.incoming().take(20).for_each(|one| serve(one.unwrap())));
    address
}

/// Three on end and the server is left alone: what it says to one client, or of one sender's mail, must not have that effect for
/// all.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_one_mail_shuts_nobody_else_out() {
    let server: Server = format!("smtp://{}", server_that_says_421_to_mail()).parse().unwrap();
    let introduction = Introduction::Xclient(Identity {
        address: "192.0.2.1:4025".parse().unwrap(),
        name: ClientName::Unavailable,
        hello: "mx.abc.example".to_owned(),
        extended: true,
    });
    for introduction in [Some(&introduction), None] {
        let downstream = downstream();
        let envelope = Envelope {
            reverse_path: None,
            recipients: vec![Recipient::new(Address::parse("a@nec.example").unwrap())],
            parameters: MailParameters::default(),
        };
        let parcel = Parcel {
            recipients: vec![0],
            message: vec![Bytes::from_static(CONTENT)],
            delivered: Delivered::Plain,
            eight_bit: false,
        };
        for _ in 0..3 {
            let (answers, mut receiver) = mpsc::unbounded_channel();
            let fanout = Fanout {
                downstream: &downstream,
                next_hop: &NextHop::Fixed(server.clone()),
                recipients: None,
                introduction,
                transport: &Transport::default(),
                direction: Direction::Inbound,
                envelope: &envelope,
                served: &[false],
                deferred: &[],
                remembers: true,
                deadline: Instant::now() + Duration::from_secs(20),
                answer_deadline: Instant::now() + Duration::from_secs(20),
                opened: false,
                announced_bytes: 0,
                judges_hops: true,
                released: &AtomicBool::new(false),
                answers,
            };
            fanout.deliver(Protocol::Smtp, std::slice::from_ref(&parcel)).await;
            let (_, outcome) = receiver.try_recv().unwrap();
            let refusal = outcome.unwrap_err().to_string();
            assert!(refusal.starts_with("451 4.7.0") && refusal.contains("not you"), "{refusal}");
        }
        let hop = super::super::route::fixed(&server, Demand::default());
        assert!(downstream.hops.is_working(&hop));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fails_in_its_content_holds_back_the_other_where_nothing_would_remember_it() {
    // More than fits into the buffers on the way.
    let content: &[u8] = b"0123456789\r\n".repeat(2_000_000).leak();
    for (remembers, taken) in [(false, 0), (true, 1)] {
        let (address, counted) = server_that_goes_away_once();
        let what = (Direction::Outbound, Delivered::Sealed, remembers);
        let (outcomes, _) = deliver_as(what, address, Protocol::Smtp, content).await;
        assert_eq!(code(&outcomes), (451, taken > 0), "{outcomes:?}");
        assert_eq!(counted.load(Ordering::Acquire), taken);
    }
}

#[tokio::test]
async fn a_message_is_for_so_many_domains_and_the_rest_comes_later() {
    let over = DOMAINS_MAX + 1;
    // Who has it already costs nothing: the next attempt gets further.
    for (count, served, later) in [(DOMAINS_MAX, false, 0), (over, false, 1), (over, true, 0)] {
        let to = |number| format!("b@abc{number}.example");
        let addresses = (0..count).map(|number| Address::parse(&to(number)).unwrap());
        let recipients: Vec<Recipient> = addresses.map(Recipient::new).collect();
        let parcel = Parcel {
            recipients: (0..count).collect(),
            message: vec![Bytes::from_static(CONTENT)],
            delivered: Delivered::Sealed,
            eight_bit: false,
        };
        let envelope =
            Envelope { reverse_path: None, recipients, parameters: MailParameters::default() };
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let fanout = Fanout {
            downstream: &downstream(),
            next_hop: &NextHop::Mx,
            recipients: None,
            introduction: None,
            transport: &Transport::default(),
            direction: Direction::Outbound,
            envelope: &envelope,
            served: &[served],
            deferred: &[],
            remembers: true,
            deadline: Instant::now() + Duration::from_secs(20),
            answer_deadline: Instant::now() + Duration::from_secs(20),
            opened: false,
            announced_bytes: 0,
            judges_hops: true,
            released: &AtomicBool::new(false),
            answers: sender,
        };
        fanout.deliver(Protocol::Lmtp, &[parcel]).await;
        let mut unasked = Vec::new();
        while let Ok((index, outcome)) = receiver.try_recv() {
            let text = Reply::from(&outcome.unwrap_err()).to_string();
            if text.starts_with("451 4.5.3 ") {
                unasked.push(index);
            } else {
                // Nobody answers here.
                assert!(text.starts_with("451 4.4.3 "), "{text}");
            }
        }
        assert_eq!(unasked, (DOMAINS_MAX..DOMAINS_MAX + later).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_lmtp_each_copy_goes_its_own_way() {
    let (sink, _) = server(&["550 5.1.1 no"], &[]);
    let (outcomes, _) = deliver(&sink, Protocol::Lmtp, CONTENT).await;
    let positive = outcomes.iter().flatten().filter(|outcome| outcome.is_ok()).count();
    assert_eq!((outcomes.iter().flatten().count(), positive), (2, 1));
    assert_eq!(sink.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_for_now() {
    let port = sealgate_testkit::process::free_port();
    let mut sink = Sink::smtp();
    sink.address = sealgate_testkit::process::loopback(port);
    let (outcomes, released) = deliver(&sink, Protocol::Smtp, CONTENT).await;
    assert_eq!(code(&outcomes), (451, false));
    assert!(!released);
}

#[tokio::test]
async fn joined_futures_all_end() {
    let wait = |millis| async move {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        millis
    };
    assert_eq!(join([20, 1, 10].into_iter().map(wait)).await, [20, 1, 10]);
    assert!(join(std::iter::empty::<std::future::Ready<()>>()).await.is_empty());
}

#[tokio::test]
async fn notifications_of_opened_mail_return_its_header_section_only() {
    for (what, expected) in [
        ((Direction::Inbound, Delivered::Plain, true), true),
        ((Direction::Inbound, Delivered::AsReceived, true), false),
        ((Direction::Outbound, Delivered::Plain, true), false),
    ] {
        let (sink, _) = server(&[], &[]);
        deliver_as(what, sink.address, Protocol::Lmtp, b"A: 1\r\n\r\nx\r\n").await;
        let received = sink.await_received(2);
        let asks = received.iter().all(|message| message.mail.contains(" RET=HDRS"));
        assert_eq!(asks, expected, "{what:?} {}", received[0].mail);
    }
}

/// Whether it is in ASCII, say, is nobody's affair; the log has it.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_opened_content_needs_is_refused_as_a_filter_would() {
    let sink = Sink::scripted(SinkProtocol::Smtp, |stage| match stage {
        Stage::Hello => Some("250-x\r\n250-DSN\r\n250 SIZE 3000\r\n".to_owned()),
        Stage::Dot(_) => Some("554 5.7.9 secret words\r\n".to_owned()),
        _ => None,
    });
    let hop = hop(sink.address, Demand::default());
    let downstream = downstream();
    let to = Recipient::new(Address::parse("a@nec.example").unwrap());
    let envelope = Envelope {
        reverse_path: None,
        recipients: vec![to],
        parameters: MailParameters::default(),
    };
    for (opened, eight_bit, (announced_bytes, bytes), expected, noted) in [
        (true, false, (100, 100), "550 5.7.1 message refused", "554 5.7.9"),
        (true, true, (100, 100), "550 5.7.1 message refused", "550 5.6.3"),
        (true, false, (100, 4000), "550 5.7.1 message refused", "552 5.3.4"),
        // It would be told of what came in, too.
        (true, false, (4000, 100), "552 5.3.4", ""),
        (false, true, (100, 100), "550 5.6.3", ""),
    ] {
        let parcel = Parcel {
            recipients: vec![0],
            message: vec![Bytes::from(vec![b'x'; bytes])],
            delivered: Delivered::Plain,
            eight_bit,
        };
        let transport = Transport::default();
        let consignment = Consignment {
            envelope: &envelope,
            parameters: Cow::Borrowed(&envelope.parameters),
            parcel: &parcel,
            recipients: vec![0],
            hop: hop.clone(),
            transport: &transport,
            judges_hop: true,
            opened,
            size_bytes_min: announced_bytes,
        };
        let soon = Instant::now() + Duration::from_secs(20);
        let place = downstream.hops.reserve(&hop, 1, soon).await.unwrap();
        let Admission { delivery, refused, .. } = downstream.admit(&consignment, place, soon).await;
        let mut outcomes = refused;
        if let Some(mut delivery) = delivery {
            delivery.queue_content();
            delivery.release(&downstream, soon, |outcome| outcomes.push(outcome)).await;
        }
        let (_, outcome) = outcomes.pop().unwrap();
        let refusal = outcome.unwrap_err().to_string();
        assert!(refusal.starts_with(expected), "{opened} {eight_bit}: {refusal}");
        assert_eq!(transport.opened_refused().concat(), noted, "{opened} {eight_bit}");
    }
}

/// What a mail server asks for, says or limits would tell the sender which copy we opened.
#[tokio::test(flavor = "multi_thread")]
async fn all_copies_are_alike_where_a_key_of_ours_was_tried() {
    let one_of_both = |opened, announced_bytes| Way {
        direction: Direction::Inbound,
        delivered: [Delivered::Plain, Delivered::AsReceived],
        remembers: true,
        opened,
        announced_bytes,
    };
    for (answer, status) in [("250 2.0.0 secret words", "250"), ("550 5.7.1 secret words", "550")] {
        let answers: &'static [&str] = Box::leak(Box::new([answer, answer]));
        let (sink, _) = server(&[], answers);
        let (outcomes, _) =
            deliver_this_way(one_of_both(true, 0), sink.address, Protocol::Lmtp, CONTENT).await;
        let said = outcomes.into_iter().flatten().map(|outcome| match outcome {
            Ok(reply) => format!("{} {}", reply.code, reply.text()),
            Err(refusal) => refusal.to_string(),
        });
        let said: Vec<String> = said.collect();
        assert!(said[0].starts_with(status) && !said[0].contains("words"), "{said:?}");
        assert_eq!(said[0], said[1]);
        let received = sink.received();
        assert!(received.iter().all(|message| message.mail.contains(" RET=HDRS")), "{received:?}");
    }
    // The limit of a server that holds for what came in, not for the little that was in it.
    const LIMIT: usize = 20_000;
    for (opened, announced_bytes, taken) in
        [(true, LIMIT + 1, 0), (true, LIMIT, 2), (false, LIMIT + 1, 2)]
    {
        let sink = Sink::scripted(SinkProtocol::Smtp, |stage| {
            matches!(stage, Stage::Hello)
                .then(|| format!("250-x\r\n250-DSN\r\n250 SIZE {LIMIT}\r\n"))
        });
        let way = one_of_both(opened, announced_bytes);
        let (outcomes, _) = deliver_this_way(way, sink.address, Protocol::Lmtp, CONTENT).await;
        let positive = outcomes.iter().flatten().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(positive, taken, "{opened} {announced_bytes}: {outcomes:?}");
    }
}

/// A name server that answers nobody before it was asked about so many names, and then that there are none of them.
fn name_server(names: usize) -> SocketAddr {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut waiting: HashMap<Vec<u8>, (Vec<u8>, SocketAddr)> = HashMap::new();
        let mut packet = [0; 512];
        while let Ok((octets, client)) = socket.recv_from(&mut packet) {
            let question = packet[..octets].to_vec();
            // RFC 1035 §4.1.1: the header takes twelve octets, the name follows.
            let name = question[12..].iter().take_while(|octet| **octet != 0).copied().collect();
            waiting.insert(name, (question, client));
            if waiting.len() >= names {
                for (question, client) in waiting.values() {
                    let mut answer = question.clone();
                    // A response, recursion available, NXDOMAIN.
                    answer[2] |= 0x80;
                    answer[3] = 0x83;
                    let _ = socket.send_to(&answer, client);
                }
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn hops_of_several_domains_are_looked_up_at_once() {
    let resolvers = Resolvers::Servers(vec![name_server(3)]);
    let dns = Dns { resolvers, dnssec: false, trust_anchor: None };
    let router = Router::new(&dns, None, "gate.nec.example").unwrap();
    let downstream = Downstream::new(router, "gate.nec.example".to_owned(), Hops::new(9));
    let to = |text| Recipient::new(Address::parse(text).unwrap());
    let envelope = Envelope {
        reverse_path: None,
        recipients: vec![to("x@a.example"), to("x@b.example"), to("x@c.example")],
        parameters: MailParameters::default(),
    };
    let (sender, _receiver) = mpsc::unbounded_channel();
    let fanout = Fanout {
        downstream: &downstream,
        next_hop: &NextHop::Mx,
        recipients: None,
        introduction: None,
        transport: &Transport::default(),
        direction: Direction::Outbound,
        envelope: &envelope,
        served: &[],
        deferred: &[],
        remembers: true,
        deadline: Instant::now() + Duration::from_secs(60),
        answer_deadline: Instant::now() + Duration::from_secs(60),
        opened: false,
        announced_bytes: 0,
        judges_hops: true,
        released: &AtomicBool::new(false),
        answers: sender,
    };
    let hops = fanout.hops().await;
    assert_eq!(hops.len(), 3);
    for (domain, hop) in hops {
        let refusal = hop.unwrap_err().to_string();
        assert!(refusal.starts_with("550 5.1.2"), "{domain:?}: {refusal}");
    }
}
