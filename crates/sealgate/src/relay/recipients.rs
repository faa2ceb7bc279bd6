//! Asks the mail server at RCPT whether it takes mail for a recipient, so that nobody's message is taken in vain.
//!
//! In: what the client said in MAIL and RCPT. Out: the mail server's own answer, its status and words kept. The question is
//! MAIL, RCPT and RSET on a pooled connection. Answers for good are remembered for a short time, bounded; "not now" is asked
//! again each time. Who is refused at delivery all the same is refused at RCPT when the message comes again.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;
use sealgate_core::envelope::{Envelope, Recipient};
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::smtp::client::{Event, Failure, Lack, Transaction};

use super::deliver::{Downstream, Over, REUSED_MAX, is_permanent, lacking_over, said_over};
use super::hops::Reservation;
use super::link::Link;
use super::route::Hop;

/// The answers of a short while.
#[derive(Debug)]
pub(crate) struct Recipients {
    answers: Cache<Question, Answer>,
    /// Refusals at delivery that all recipients of a message were put off for: each is said once, when it comes again. The size
    /// that the client gives tells it from others.
    owed: Cache<(Question, u64), Owed>,
}

/// A refusal to be said when a message comes again.
#[derive(Clone, Debug)]
struct Owed {
    refusal: Refusal,
    since: Instant,
}

/// What an answer may depend on. Another mail server, after a reload, knows others. One without such a mailbox says so to
/// everybody; what else it refuses or takes may be because of who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    server: String,
    /// `None`: whoever it is.
    asker: Option<Asker>,
    to: String,
}

/// As far as the mail server is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asker {
    client: Option<IpAddr>,
    /// `None` for the null reverse-path: what a bounce is told is its own affair too.
    from: Option<String>,
}

impl Question {
    fn new(hop: &Hop, envelope: &Envelope, to: &Recipient) -> Self {
        Self {
            server: hop.name.clone(),
            asker: Some(Asker {
                client: hop.introduction.as_ref().map(|introduction| introduction.client()),
                from: envelope.reverse_path.as_ref().map(ToString::to_string),
            }),
            to: to.address.to_string(),
        }
    }

    /// Whoever brings it: a message comes again from any of its sender's hosts.
    fn of_message(hop: &Hop, envelope: &Envelope, to: &Recipient) -> (Self, u64) {
        let question = Self::new(hop, envelope, to);
        let asker = question.asker.map(|asker| Asker { client: None, ..asker });
        (Self { asker, ..question }, envelope.parameters.size_bytes.unwrap_or_default())
    }

    fn of_everybody(&self) -> Self {
        Self { asker: None, ..self.clone() }
    }
}

/// What a mail server said, with SIZE as the client gave it, 0 where it gave none: a mailbox that is nearly full takes less.
#[derive(Clone, Debug)]
enum Answer {
    /// It takes so many octets, and fewer.
    Admitted(u64),
    /// It takes neither so many octets nor more, for good.
    Refused(u64, Refusal),
}

/// A server's answer, its connection where that can be used again, and the place at the server.
struct Answered {
    reply: Reply,
    link: Option<Link>,
    over: Over,
    _place: Reservation,
}

impl Recipients {
    /// Nothing is known yet.
    pub(crate) fn new() -> Self {
        let answers = Cache::builder().max_capacity(ANSWERS_MAX).expire_after(AnswerExpiry).build();
        let owed = Cache::builder().max_capacity(OWED_MAX).time_to_live(OWED_FOR).build();
        Self { answers, owed }
    }

    /// Whether the mail server at this hop takes mail from the envelope's sender for a recipient.
    ///
    /// # Errors
    /// The refusal to pass on, or [`Refusal::NextHopUnreachable`] where there is no answer.
    pub(crate) async fn admit(
        &self,
        downstream: &Downstream,
        hop: &Hop,
        envelope: &Envelope,
        to: &Recipient,
    ) -> Result<(), Refusal> {
        let question = Question::new(hop, envelope, to);
        let of_everybody = question.of_everybody();
        let size_bytes = envelope.parameters.size_bytes.unwrap_or_default();
        let owed = self.owed.remove(&Question::of_message(hop, envelope, to));
        // Without a size another message of the same sender is soon taken for that one.
        let is_it = |owed: &Owed| size_bytes > 0 || owed.since.elapsed() < OWED_UNSIZED_FOR;
        if let Some(owed) = owed.filter(is_it) {
            return Err(owed.refusal);
        }
        let remembered = self.remembered(&question, size_bytes);
        if let Some(answer) = remembered.or_else(|| self.remembered(&of_everybody, size_bytes)) {
            return answer;
        }
        let transaction = Transaction {
            reverse_path: envelope.reverse_path.as_ref(),
            parameters: &envelope.parameters,
            recipients: vec![to],
            size_bytes,
            eight_bit: false,
            utf8_header: false,
        };
        let asked = tokio::time::timeout(ANSWER_MAX, downstream.ask(hop, &transaction)).await;
        let Answered { reply, link, over, _place } =
            asked.unwrap_or(Err(Refusal::NextHopUnreachable))?;
        if let Some(link) = link {
            downstream.take_back(hop, link).await;
        }
        if reply.is_positive() {
            self.answers.insert(question, Answer::Admitted(size_bytes));
            return Ok(());
        }
        let refusal = said_over(over, hop, &reply);
        if is_no_mailbox(&reply) {
            self.answers.insert(of_everybody, Answer::Refused(0, refusal.clone()));
        } else if is_permanent(&refusal) {
            self.answers.insert(question, Answer::Refused(size_bytes, refusal.clone()));
        }
        Err(refusal)
    }

    fn remembered(&self, question: &Question, size_bytes: u64) -> Option<Result<(), Refusal>> {
        match self.answers.get(question)? {
            Answer::Admitted(most) => (size_bytes <= most).then_some(Ok(())),
            Answer::Refused(least, refusal) => (size_bytes >= least).then_some(Err(refusal)),
        }
    }

    /// Somebody who was admitted at RCPT was refused at delivery, and others were put off because of him: the next attempt is told
    /// so at RCPT, even by a mail server that says no at delivery only, and even after hours.
    pub(super) fn owe(&self, hop: &Hop, envelope: &Envelope, to: &Recipient, refusal: &Refusal) {
        self.forget(hop, envelope, to);
        let owed = Owed { refusal: refusal.clone(), since: Instant::now() };
        self.owed.insert(Question::of_message(hop, envelope, to), owed);
    }

    /// The answer was not true: the next question is answered by the mail server.
    pub(super) fn forget(&self, hop: &Hop, envelope: &Envelope, to: &Recipient) {
        self.answers.invalidate(&Question::new(hop, envelope, to));
    }
}

impl Downstream {
    /// One question; over a pooled connection, or a new one where those are dead.
    async fn ask(&self, hop: &Hop, transaction: &Transaction<'_>) -> Result<Answered, Refusal> {
        let deadline = tokio::time::Instant::now() + ANSWER_MAX;
        let place = self.hops.reserve(hop, 1, deadline).await?;
        let mut answer = None;
        while answer.is_none()
            && let Some(mut link) = self.pool.take(hop)
        {
            let until = tokio::time::Instant::now() + REUSED_MAX;
            if let Err(lack) = ask_about(&mut link, transaction) {
                let over = Over::of(&link);
                self.pool.keep(hop, link);
                return Err(lacking_over(over, lack.into()));
            }
            if self.hear_again(&mut link, hop, until).await.is_some() {
                // 421 is about the connection: a new one tells.
                let is_answer = |(reply, ..): &(Reply, Over, _)| reply.code != 421;
                answer = self.hear_answer(link).await.filter(is_answer);
            }
        }
        let answer = match answer {
            Some(answer) => Some(answer),
            None => {
                let mut link = self.attempt_to_ask(hop).await?;
                if let Err(lack) = ask_about(&mut link, transaction) {
                    let over = Over::of(&link);
                    self.pool.keep(hop, link);
                    return Err(lacking_over(over, lack.into()));
                }
                self.hear_answer(link).await
            }
        };
        let (reply, over, link) = answer.ok_or(Refusal::NextHopUnreachable)?;
        Ok(Answered { reply, link, over, _place: place })
    }

    async fn attempt_to_ask(&self, hop: &Hop) -> Result<Link, Refusal> {
        let attempt = self.hops.attempt(hop)?;
        let connected = self.connect_to_ask(hop, &attempt).await;
        match &connected {
            Err(refusal) if !is_permanent(refusal) => attempt.failed(),
            Ok(_) | Err(_) => attempt.succeeded(),
        }
        connected
    }

    /// The answer, over what it came, and the connection where it may be used again; `None` where it was of no use any more.
    async fn hear_answer(&self, mut link: Link) -> Option<(Reply, Over, Option<Link>)> {
        loop {
            let event = link.next().await.ok()?;
            let over = Over::of(&link);
            match event {
                Event::Checked(replies) | Event::Refused(replies) => {
                    let reply = replies.into_iter().next()?;
                    if reply.code == 421 {
                        return Some((reply, over, None));
                    }
                    self.inside_offers.learn(&link.passage);
                    link.asked.questions += 1;
                    link.asked.refusals += usize::from(!reply.is_positive());
                    let is_tired = link.asked.questions >= QUESTIONS_MAX
                        || link.asked.refusals >= REFUSALS_MAX;
                    return Some((reply, over, (!is_tired).then_some(link)));
                }
                Event::Failed(Failure::Closing(reply)) => return Some((reply, over, None)),
                Event::Failed(_) => return None,
                _ => {}
            }
        }
    }
}

/// Asks over a link, with the size, or without where the server takes no such message: what is delivered may be smaller, without the
/// signature's Base64, and is looked at then.
fn ask_about(link: &mut Link, transaction: &Transaction<'_>) -> Result<(), Lack> {
    match link.client.check(transaction) {
        Err(Lack::Size) => link.client.check(&Transaction { size_bytes: 0, ..transaction.clone() }),
        other => other,
    }
}

/// RFC 3463 §3.2: X.1.1, bad destination mailbox address.
fn is_no_mailbox(reply: &Reply) -> bool {
    matches!(reply.enhanced, Some((5, 1, 1)))
}

#[derive(Debug)]
struct AnswerExpiry;

impl Expiry<Question, Answer> for AnswerExpiry {
    fn expire_after_create(&self, _: &Question, answer: &Answer, _: Instant) -> Option<Duration> {
        Some(match answer {
            Answer::Admitted(_) => ADMITTED_FOR,
            Answer::Refused(..) => REFUSED_FOR,
        })
    }

    /// One for another size takes its place.
    fn expire_after_update(
        &self,
        question: &Question,
        answer: &Answer,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(question, answer, now)
    }
}

/// Answers kept: some 30 MB at worst.
const ANSWERS_MAX: u64 = 50_000;
/// How long a mailbox is believed to be there; delivery still tells the truth, and that is remembered.
const ADMITTED_FOR: Duration = Duration::from_secs(300);
/// Refusals owed to messages that come again.
const OWED_MAX: u64 = 10_000;
/// How long where the message had no size, by which it is told from others.
const OWED_UNSIZED_FOR: Duration = Duration::from_secs(3600);
/// Mail servers come again within minutes at first, and after some hours at last.
const OWED_FOR: Duration = Duration::from_secs(12 * 3600);
/// How long a mailbox is believed not to be there: a new one gets its first mail soon.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// Questions over one connection: Postfix calls RSET junk from the hundredth on (smtpd_junk_command_limit).
const QUESTIONS_MAX: usize = 50;
/// Refusals over one connection: Postfix slows down from the tenth on (smtpd_soft_error_limit).
const REFUSALS_MAX: usize = 8;
/// Wait for the answer: clients wait five minutes for ours (RFC 5321 §4.5.3.2.3).
const ANSWER_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use sealgate_core::address::Address;
    use sealgate_core::envelope::MailParameters;
    use sealgate_core::smtp::client::{ClientName, Identity};
    use sealgate_testkit::process;
    use sealgate_testkit::sink::{Protocol, Sink, Stage};

    use super::super::connect::tests::{answering, downstream, hop};
    use super::super::introduction::Introduction;
    use super::super::transport::Demand;
    use super::*;

    async fn admit(downstream: &Downstream, hop: &Hop) -> Result<(), Refusal> {
        let to = Recipient::new(Address::parse("alice@nec.example").unwrap());
        let parameters = MailParameters::default();
        let envelope = Envelope { reverse_path: None, recipients: Vec::new(), parameters };
        Recipients::new().admit(downstream, hop, &envelope, &to).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_question_waits_for_a_place_at_the_mail_server() {
        let sink = Sink::smtp();
        let (downstream, hop) = (downstream(1), hop(sink.address, Demand::default()));
        let now = tokio::time::Instant::now();
        let place = downstream.hops.reserve(&hop, 1, now).await.unwrap();
        let mut asked = std::pin::pin!(admit(&downstream, &hop));
        let early = tokio::time::timeout(Duration::from_millis(200), asked.as_mut()).await;
        assert!(early.is_err(), "asked over a connection too many");
        assert_eq!(sink.connections(), 0);
        drop(place);
        assert_eq!(asked.await, Ok(()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn questions_that_fail_count_and_none_goes_to_a_server_that_is_left_alone() {
        let dead = hop(process::loopback(process::free_port()), Demand::default());
        let downstream = downstream(1);
        for _ in 0..5 {
            assert_eq!(admit(&downstream, &dead).await, Err(Refusal::NextHopUnreachable));
        }
        assert!(downstream.hops.attempt(&dead).is_err(), "failures that nobody counted");
        let sink = Sink::smtp();
        let there = hop(sink.address, Demand::default());
        loop {
            while let Ok(attempt) = downstream.hops.attempt(&there) {
                attempt.failed();
            }
            let answer = admit(&downstream, &there).await;
            // The first pause is short: where it is over by now, once more.
            if downstream.hops.attempt(&there).is_err() {
                assert_eq!(answer, Err(Refusal::NextHopUnreachable));
                break;
            }
        }
    }

    /// A server that limits one client says so to that client only; three of its sessions must not shut out everybody.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_an_introduced_client_is_told_is_no_failure_of_the_server() {
        let sink = Sink::scripted(Protocol::Smtp, |stage| {
            let greets = matches!(stage, Stage::Connect);
            greets.then(|| "421 4.7.0 too many connections from you\r\n".to_owned())
        });
        let server = hop(sink.address, Demand::default());
        let (client, ours) = ("192.0.2.1:4025".parse().unwrap(), "192.0.2.25:25".parse().unwrap());
        let introduction = Some(Introduction::Proxy { client, server: ours });
        let introducing = Hop { introduction, ..server.clone() };
        let downstream = downstream(1);
        for _ in 0..5 {
            let refusal = Reply::from(&admit(&downstream, &introducing).await.unwrap_err());
            assert!(refusal.text().contains("too many connections from you"), "{refusal}");
        }
        assert!(downstream.hops.attempt(&server).is_ok(), "it was left alone");
        for _ in 0..3 {
            assert!(admit(&downstream, &server).await.is_err());
        }
        assert!(downstream.hops.attempt(&server).is_err(), "said to us it is one");
    }

    /// A server that holds off one client by a late greeting, or by none.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_whose_connections_are_closed_shuts_nobody_else_out() {
        let (client, ours) = ("192.0.2.1:4025".parse().unwrap(), "192.0.2.25:25".parse().unwrap());
        let proxy = || Introduction::Proxy { client, server: ours };
        let xclient = || {
            Introduction::Xclient(Identity {
                address: client,
                name: ClientName::Unavailable,
                hello: "mx.abc.example".to_owned(),
                extended: true,
            })
        };
        let offer = "250-mx.abc.example\r\n250 XCLIENT NAME ADDR HELO\r\n";
        // What is said to EHLO and to XCLIENT.
        for (introduction, hello, answer, is_left_alone) in [
            (proxy(), "", "", false),
            (xclient(), offer, "", false),
            (xclient(), offer, "421 4.7.0 not you\r\n", false),
            // Before it knew of the client, or without.
            (xclient(), "", "", true),
            (xclient(), "421 4.3.2 not now\r\n", "", true),
            (xclient(), "250 mx.abc.example\r\n", "", true),
        ] {
            let said = format!("{introduction:?} {hello} {answer}");
            let address = answering(move |line| {
                if line.starts_with("EHLO") { hello } else { answer }.to_owned()
            });
            let server = hop(address, Demand::default());
            let introducing = Hop { introduction: Some(introduction), ..server.clone() };
            let downstream = downstream(1);
            for _ in 0..3 {
                assert!(admit(&downstream, &introducing).await.is_err(), "{said}");
            }
            assert_eq!(downstream.hops.attempt(&server).is_err(), is_left_alone, "{said}");
        }
    }

    /// What is wanting today may be there tomorrow, or for the next question.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_mail_server_that_insists_on_tls_that_failed_refuses_nobody_for_good() {
        const INSISTS: &str = "530 5.7.0 Must issue a STARTTLS command first";
        for (to_mail, to_rcpt, status) in [
            (INSISTS, "", "451 4.7.0"),
            ("250 yes", INSISTS, "451 4.7.0"),
            ("250 yes", "550 User unknown", "550 5.0.0"),
            ("250 yes", "550 TLS required", "451 4.0.0"),
        ] {
            let sink = Sink::scripted(Protocol::Smtp, move |stage| match stage {
                Stage::Hello => Some("250-x\r\n250 STARTTLS\r\n".to_owned()),
                Stage::Mail(_) => Some(format!("{to_mail}\r\n")),
                Stage::Rcpt(_) => Some(format!("{to_rcpt}\r\n")),
                _ => None,
            });
            let (downstream, hop) = (downstream(1), hop(sink.address, Demand::default()));
            let refusal = admit(&downstream, &hop).await.unwrap_err().to_string();
            assert!(refusal.starts_with(status), "{to_mail} {to_rcpt}: {refusal}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_message_is_known_again_whoever_brings_it() {
        let sink = Sink::smtp();
        let server = hop(sink.address, Demand::default());
        let ours = "192.0.2.25:25".parse().unwrap();
        let brought_by = |client: &str| {
            let client = client.parse().unwrap();
            Hop {
                introduction: Some(Introduction::Proxy { client, server: ours }),
                ..server.clone()
            }
        };
        let (first, second) = (brought_by("192.0.2.1:4025"), brought_by("192.0.2.2:4025"));
        let to = Recipient::new(Address::parse("alice@nec.example").unwrap());
        let parameters = MailParameters { size_bytes: Some(1000), ..MailParameters::default() };
        let envelope = Envelope { reverse_path: None, recipients: Vec::new(), parameters };
        let (downstream, known) = (downstream(1), Recipients::new());
        known.owe(&first, &envelope, &to, &Refusal::NextHopRefusedOpened);
        let told = known.admit(&downstream, &second, &envelope, &to).await;
        assert_eq!((told, sink.connections()), (Err(Refusal::NextHopRefusedOpened), 0));
        let question = Question::of_message(&first, &envelope, &to);
        assert!(known.owed.get(&question).is_none(), "it is said once");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_mail_server_is_asked_anew() {
        let [old, new] = [true, false].map(|refuses| {
            Sink::scripted(Protocol::Smtp, move |stage| {
                let is_refused = refuses && matches!(stage, Stage::Rcpt(_));
                is_refused.then(|| "550 5.1.1 nobody here\r\n".to_owned())
            })
        });
        let (downstream, known) = (downstream(1), Recipients::new());
        let to = Recipient::new(Address::parse("alice@nec.example").unwrap());
        let parameters = MailParameters::default();
        let envelope = Envelope { reverse_path: None, recipients: Vec::new(), parameters };
        let [old_hop, new_hop] = [&old, &new].map(|sink| hop(sink.address, Demand::default()));
        assert!(known.admit(&downstream, &old_hop, &envelope, &to).await.is_err());
        assert_eq!(known.admit(&downstream, &new_hop, &envelope, &to).await, Ok(()));
        assert!(known.admit(&downstream, &old_hop, &envelope, &to).await.is_err());
        assert_eq!(old.connections(), 1, "remembered");
    }

    /// Many mailboxes never send, and take no bounces; mail they take.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_bounce_is_told_is_nobody_elses_answer() {
        let sink = Sink::scripted(Protocol::Smtp, {
            let is_bounce = std::sync::atomic::AtomicBool::new(false);
            move |stage| {
                use std::sync::atomic::Ordering;
                match stage {
                    Stage::Mail(line) => {
                        is_bounce.store(line.contains("<>"), Ordering::SeqCst);
                        None
                    }
                    Stage::Rcpt(_) if is_bounce.load(Ordering::SeqCst) => {
                        Some("550 this address takes no bounces\r\n".to_owned())
                    }
                    _ => None,
                }
            }
        });
        let (downstream, known) = (downstream(1), Recipients::new());
        let hop = hop(sink.address, Demand::default());
        let to = Recipient::new(Address::parse("alice@nec.example").unwrap());
        let from = |reverse_path| Envelope {
            reverse_path,
            recipients: Vec::new(),
            parameters: MailParameters::default(),
        };
        let bob = from(Some(Address::parse("bob@abc.example").unwrap()));
        let bounce = from(None);
        for _ in 0..2 {
            assert!(known.admit(&downstream, &hop, &bounce, &to).await.is_err());
            assert_eq!(known.admit(&downstream, &hop, &bob, &to).await, Ok(()));
        }
    }

    #[test]
    fn only_a_missing_mailbox_is_everybodys_answer() {
        let reply = |enhanced| Reply::new(550, enhanced, "no");
        assert!(is_no_mailbox(&reply((5, 1, 1))));
        for other in [(5, 7, 1), (5, 1, 8), (5, 2, 1)] {
            assert!(!is_no_mailbox(&reply(other)), "{other:?}");
        }
    }
}
