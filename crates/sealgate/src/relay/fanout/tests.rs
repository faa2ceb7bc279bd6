//! Outcomes of several copies, against scripted servers.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sealgate_core::address::Address;
use sealgate_core::envelope::{MailParameters, Recipient};
use sealgate_testkit::sink::{Protocol as SinkProtocol, Sink, Stage};
use tokio::sync::mpsc;

use super::super::route::Router;
use super::*;
use crate::config::{Dns, Resolvers, Server};

type Outcomes = Vec<Option<Result<Reply, Refusal>>>;

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

/// Delivers two copies for one recipient each.
async fn deliver(sink: &Sink, upstream: Protocol, content: &'static [u8]) -> (Outcomes, bool) {
    let what = (Direction::Outbound, Delivered::Sealed);
    deliver_as(what, sink, upstream, content).await
}

async fn deliver_as(
    (direction, delivered): (Direction, Delivered),
    sink: &Sink,
    upstream: Protocol,
    content: &'static [u8],
) -> (Outcomes, bool) {
    let dns = Dns { resolvers: Resolvers::Servers(Vec::new()) };
    let router = Router::new(&dns, "gate.nec.example").unwrap();
    let downstream = Downstream::new(router, "gate.nec.example".to_owned()).unwrap();
    let server: Server = format!("smtp://{}", sink.address).parse().unwrap();
    let to = |text| Recipient::new(Address::parse(text).unwrap());
    let envelope = Envelope {
        reverse_path: None,
        recipients: vec![to("a@abc.example"), to("b@abc.example")],
        parameters: MailParameters::default(),
    };
    let parcel = |index| Parcel {
        recipients: vec![index],
        message: vec![Bytes::from_static(content)],
        delivered,
        eight_bit: false,
    };
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let released = AtomicBool::new(false);
    let fanout = Fanout {
        downstream: &downstream,
        next_hop: &NextHop::Fixed(server),
        introduction: None,
        direction,
        envelope: &envelope,
        deadline: Instant::now() + std::time::Duration::from_secs(20),
        released: &released,
        answers: &sender,
    };
    fanout.deliver(upstream, &[parcel(0), parcel(1)]).await;
    let mut outcomes = vec![None; 2];
    while let Ok((index, outcome)) = receiver.try_recv() {
        outcomes[index].get_or_insert(outcome);
    }
    (outcomes, released.load(Ordering::Acquire))
}

fn code(outcomes: &[Option<Result<Reply, Refusal>>]) -> (u16, bool) {
    let joint = joint(outcomes);
    let code = joint.result.map_or_else(|refusal| Reply::from(&refusal).code, |reply| reply.code);
    (code, joint.partial)
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

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_recipient_holds_back_everything() {
    for (answer, expected) in [("550 5.1.1 no", 550), ("450 4.2.1 later", 450)] {
        let answers: &'static [&str] = Box::leak(Box::new(["", answer]));
        let (sink, _) = server(answers, &[]);
        let (outcomes, released) = deliver(&sink, Protocol::Smtp, CONTENT).await;
        assert_eq!(code(&outcomes), (expected, false));
        assert!(!released);
        assert!(sink.received().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_refusal_after_the_dot_stops_the_rest() {
    for (answers, expected) in
        [(&["550 5.7.1 no"][..], (550, false)), (&["451 4.0.0 later"], (451, false))]
    {
        let (sink, _) = server(&[], answers);
        let (outcomes, _) = deliver(&sink, Protocol::Smtp, CONTENT).await;
        assert_eq!(code(&outcomes), expected);
        assert!(sink.received().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_refusal_after_the_dot_is_partial() {
    for (answers, expected) in
        [(&["", "550 5.7.1 no"][..], (250, true)), (&["", "451 4.0.0 later"], (451, true))]
    {
        let (sink, _) = server(&[], answers);
        let (outcomes, _) = deliver(&sink, Protocol::Smtp, CONTENT).await;
        assert_eq!(code(&outcomes), expected);
        assert_eq!(sink.received().len(), 1);
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

#[test]
fn one_reply_out_of_many() {
    let ok = || Some(Ok(Reply::new(250, (2, 0, 0), "queued")));
    let bad = |code: u16| {
        let class = u8::try_from(code / 100).unwrap();
        Some(Err(Refusal::NextHop(Reply::new(code, (class, 1, 1), "no"))))
    };
    assert_eq!(code(&[ok(), ok()]), (250, false));
    assert_eq!(code(&[bad(550), bad(550)]), (550, false));
    assert_eq!(code(&[bad(550), None]), (550, false));
    assert_eq!(code(&[bad(550), bad(451)]), (451, false));
    assert_eq!(code(&[ok(), bad(550)]), (250, true));
    assert_eq!(code(&[ok(), bad(550), bad(450)]), (450, true));
    assert_eq!(code(&[ok(), None]), (451, true));
    assert_eq!(code(&[None]), (451, false));
}

#[tokio::test]
async fn joined_futures_all_end() {
    let wait = |millis| async move {
        tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
        millis
    };
    assert_eq!(join([20, 1, 10].into_iter().map(wait)).await, [20, 1, 10]);
    assert!(join(std::iter::empty::<std::future::Ready<()>>()).await.is_empty());
}

#[tokio::test]
async fn notifications_of_opened_mail_return_its_header_section_only() {
    for (what, expected) in [
        ((Direction::Inbound, Delivered::Plain), true),
        ((Direction::Inbound, Delivered::AsReceived), false),
        ((Direction::Outbound, Delivered::Plain), false),
    ] {
        let (sink, _) = server(&[], &[]);
        deliver_as(what, &sink, Protocol::Lmtp, b"A: 1\r\n\r\nx\r\n").await;
        let received = sink.await_received(2);
        let asks = received.iter().all(|message| message.mail.contains(" RET=HDRS"));
        assert_eq!(asks, expected, "{what:?} {}", received[0].mail);
    }
}
