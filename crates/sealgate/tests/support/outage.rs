//! Mail in both directions while a store of the relay is killed and brought back, and the books afterwards.
//!
//! Every mail has recipients of its own, so that no answer comes from the relay's caches (there an answer is kept for ten
//! minutes): the store is needed for each mail, and while it is away no mail at all may pass.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealgate_testkit::gate::{Gate, set};
use sealgate_testkit::mail;
use sealgate_testkit::process;
use sealgate_testkit::session::send_smtp;
use sealgate_testkit::sink::{Protocol, Received, Sink};
use sealgate_testkit::upstream::{Attempt, Mail, Outcome, Pace, Upstream};
use sealgate_testkit::{cms, der};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_sealgate");
/// Reads whatever is for abc.example.
pub(crate) const ABC: &str = "@abc.example";
/// Writes to nec.example.
const BOB: &str = "bob@abc.example";
/// Reads whatever is for nec.example.
const NEC: &str = "@nec.example";
/// Stands in every mail.
const WORDS: &str = "the quarterly turnover";

/// Clients that bring mail to be sealed; each has one sender.
const OUTGOING: [Protocol; 4] = [Protocol::Smtp, Protocol::Lmtp, Protocol::Smtp, Protocol::Lmtp];
/// Clients that bring mail to be opened.
const INCOMING: usize = 2;
/// Mails that one client sends at most.
const MAILS_MAX: usize = 100;
const PACE: Pace = Pace {
    interval: Duration::from_millis(200),
    retry: Duration::from_millis(250),
    waiting_max: 6,
};
/// What comes in costs the store most: every recipient is looked up, and his domain.
const INCOMING_PACE: Pace = Pace { interval: Duration::from_millis(400), waiting_max: 3, ..PACE };

/// Mails of each client that are through before the store is killed, and again after its return.
const THROUGH: usize = 3;
/// Refusals of each client while the store is away; a database that is away is waited for some seconds with every mail.
const REFUSALS: usize = 1;
/// How long it is away at least: longer than any store that failed is left alone.
const AWAY_AT_LEAST: Duration = Duration::from_secs(3);
/// How soon mail flows again once the store takes connections, beside what mails took before it was killed: on a busy machine, or
/// with a store that does one thing at a time, that is long.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// Lines of the relay's log that a failure shows.
const LOG_LINES: usize = 20;

/// nec.example's keys, embedded: one for each client's sender, and the domain's for whom mail comes in.
pub(crate) fn make_keys(gate: &Gate) {
    for client in 0..OUTGOING.len() {
        gate.generate_key(&sender(client), "rsa2048");
    }
    gate.generate_key(NEC, "rsa2048");
}

/// Everybody at abc.example whom the clients of [`Bed::survives`] write to, a list for each client.
pub(crate) fn recipients() -> Vec<Vec<String>> {
    let of = |client| (0..MAILS_MAX).flat_map(move |number| recipients_of(client, number));
    (0..OUTGOING.len()).map(|client| of(client).collect()).collect()
}

/// A relay and what is around it.
pub(crate) struct Bed {
    /// Started by the test, when its stores are set.
    pub(crate) relay: Gate,
    abc: Gate,
    /// What abc.example seals.
    sealed: Arc<Sink>,
    internet: Sink,
    mail_server: Sink,
    /// What abc.example opens.
    read: Sink,
}

impl Bed {
    /// The relay is nec.example's and has the keys of [`make_keys`] in its own store.
    pub(crate) fn beside_its_keys(relay: Gate) -> Self {
        let (authority, certificate) = (relay.authority(), relay.certificate(NEC));
        Self::around(relay, &authority, &certificate)
    }

    /// The relay is nec.example's and uses the keys of [`make_keys`], which are embedded at another one.
    pub(crate) fn new(relay: Gate, keys: &Gate) -> Self {
        Self::around(relay, &keys.authority(), &keys.certificate(NEC))
    }

    fn around(relay: Gate, authority: &Path, certificate: &Path) -> Self {
        let mut abc = Gate::init(PROGRAM, &["abc.example"]);
        for owner in [ABC, BOB] {
            abc.generate_key(owner, "p256");
        }
        abc.must(&["anchor", "import", authority.to_str().unwrap()], b"");
        pin(&abc, NEC, certificate);
        relay.must(&["anchor", "import", abc.authority().to_str().unwrap()], b"");
        let sealed = Arc::new(Sink::smtp());
        let [internet, mail_server, read] = [(); 3].map(|()| Sink::smtp());
        abc.set(&["outside", "next_hop"], format!("smtp://{}", sealed.address));
        abc.set(&["inside", "mail_server"], format!("smtp://{}", read.address));
        abc.start();
        relay.configure(|config| {
            set(config, &["outside", "next_hop"], format!("smtp://{}", internet.address));
            set(config, &["inside", "mail_server"], format!("smtp://{}", mail_server.address));
            // The others' mail must be encrypted or is refused; this goes out plain where there is no key for sure.
            let mut rule = toml::Table::new();
            set(&mut rule, &["from"], vec![sender(0), sender(1)]);
            set(&mut rule, &["encrypt"], "prefer");
            set(config, &["rule"], vec![toml::Value::Table(rule)]);
        });
        Self { relay, abc, sealed, internet, mail_server, read }
    }

    /// Pins abc.example's certificate for everybody there in the relay's own store.
    pub(crate) fn pin_abc(&self) {
        pin(&self.relay, ABC, &self.abc.certificate(ABC));
    }

    /// Moves the secret keys into another store, and has the relay use that.
    pub(crate) fn move_keys(&self, store: &str) {
        let said = self.relay.must(&["secret-key", "move", "--to", store], b"");
        let count = 2 * (OUTGOING.len() + 1);
        assert!(mail::contains(&said, &format!("{count} moved")), "{}", text(&said));
        self.relay.set(&["secret_keys", "store"], store);
    }

    /// Sends mail, kills the store, brings it back, and looks whether every mail is where it belongs, once and sealed.
    pub(crate) fn survives<S>(
        &self,
        incoming: bool,
        store: &mut S,
        kill: impl FnOnce(&mut S),
        bring_back: impl FnOnce(&mut S),
    ) {
        let ready = self.relay.ready();
        let mut clients: Vec<Upstream> = OUTGOING
            .iter()
            .enumerate()
            .map(|(client, protocol)| {
                let entrance = match protocol {
                    Protocol::Lmtp => ready.inside_lmtp,
                    Protocol::Smtp => ready.inside_smtp,
                };
                let next = numbered(move |number| outgoing(client, number));
                Upstream::start(entrance.unwrap(), *protocol, PACE, next)
            })
            .collect();
        for client in (0..INCOMING).filter(|_| incoming) {
            let sealer = (self.abc.ready().inside_smtp.unwrap(), Arc::clone(&self.sealed));
            let next = numbered(move |number| sealed(sealer.0, &sealer.1, client, number));
            let entrance = ready.outside_smtp.unwrap();
            clients.push(Upstream::start(entrance, Protocol::Smtp, INCOMING_PACE, next));
        }
        self.each(&clients, "mail flows", THROUGH, Attempt::is_accepted);
        kill(store);
        let gone = Instant::now();
        let is_refused = |one: &Attempt| one.began > gone && !one.is_accepted();
        self.each(&clients, "mail is refused while the store is away", REFUSALS, is_refused);
        process::await_that("the store is away long enough", || gone.elapsed() >= AWAY_AT_LEAST);
        let returning = Instant::now();
        bring_back(store);
        let back = Instant::now();
        let is_through = |one: &Attempt| one.began > back && one.is_accepted();
        self.each(&clients, "mail flows again", THROUGH, is_through);
        let attempts: Vec<Vec<Attempt>> = clients.into_iter().map(Upstream::finish).collect();

        let times = Times { gone, returning, back };
        let (outgoing, incoming) = attempts.split_at(OUTGOING.len());
        times.judge("outgoing", &OUTGOING, outgoing);
        let sent = self.settle(outgoing, &self.internet, is_sealed);
        println!("{sent} sent, each once and sealed");
        if !incoming.is_empty() {
            self.assert_signed();
            println!("each signed by its sender");
            times.judge("incoming", &[Protocol::Smtp; INCOMING], incoming);
            let opened = self.settle(incoming, &self.mail_server, is_opened);
            println!("{opened} came in, each once and opened");
        }
    }

    /// Has abc.example open all that went out: each mail carries a valid signature of its sender, also those from just before
    /// and just after the outage. The policy is to sign where there is a key, so a store that could not answer
    /// and was taken for one without a key would let them pass unsigned.
    fn assert_signed(&self) {
        let outside = self.abc.ready().outside_smtp.unwrap();
        let sent = self.internet.received();
        for one in &sent {
            let to: Vec<&str> = one.recipients.iter().map(|line| address(line)).collect();
            let reply = send_smtp(outside, address(&one.mail), &to, &one.content);
            assert_eq!(reply.code, 250, "{to:?}: {reply:?}");
        }
        let opened = self.read.received();
        assert_eq!(opened.len(), sent.len());
        for one in &opened {
            let (to, said) = (address(&one.recipients[0]), text(&one.content));
            assert!(is_opened(one, &format!("{}.a@abc.example", name_of(to))), "{to}:\n{said}");
            let signer = format!("body.smime-identifier=\"{}\"", address(&one.mail));
            for words in ["X-Sealgate-Verdict: pass\r\n", &signer] {
                assert!(said.contains(words), "no {words:?}, {to}:\n{said}");
            }
        }
    }

    /// Waits until so many attempts of each client are like this.
    fn each(
        &self,
        clients: &[Upstream],
        what: &str,
        count: usize,
        is_like: impl Fn(&Attempt) -> bool,
    ) {
        let counts = || clients.iter().map(|one| one.count(&is_like)).collect::<Vec<_>>();
        let hold = || counts().iter().all(|found| *found >= count);
        let ended = || clients.iter().any(Upstream::has_ended);
        process::holds_within(process::PATIENCE, || hold() || ended());
        let last: Vec<_> = clients.iter().map(|one| one.attempts().pop()).collect();
        let log = self.relay.log();
        let end: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
        assert!(hold(), "{what}: {:?} of {count} each; {last:?}; from the end {end:#?}", counts());
    }

    /// Every recipient has every mail once; says how many there are.
    fn settle(
        &self,
        clients: &[Vec<Attempt>],
        sink: &Sink,
        is_as_it_must: impl Fn(&Received, &str) -> bool,
    ) -> usize {
        let mut arrived: HashMap<String, usize> = HashMap::new();
        for one in sink.received() {
            assert!(!one.recipients.is_empty(), "{one:?}");
            for line in &one.recipients {
                let recipient = address(line);
                assert!(is_as_it_must(&one, recipient), "{recipient}:\n{}", text(&one.content));
                *arrived.entry(recipient.to_owned()).or_default() += 1;
            }
        }
        let attempts = || clients.iter().flatten();
        let given: HashSet<&str> = attempts().map(|one| one.recipient.as_str()).collect();
        let accepted: Vec<&str> =
            attempts().filter(|one| one.is_accepted()).map(|one| one.recipient.as_str()).collect();
        let taken: HashSet<&str> = accepted.iter().copied().collect();
        assert_eq!(accepted.len(), taken.len(), "answered 250 and sent again");
        assert_eq!(taken, given, "the queues are empty, so all were answered 250");
        let here: HashSet<&str> = arrived.keys().map(String::as_str).collect();
        let missing: Vec<_> = given.difference(&here).collect();
        assert!(missing.is_empty(), "answered 250 and lost: {missing:?}");
        let strange: Vec<_> = here.difference(&given).collect();
        assert!(strange.is_empty(), "never given: {strange:?}");
        // Who got no reply sends again, and may be right: nobody else's mail comes twice.
        let lost = attempts().filter(|one| one.outcome == Outcome::ReplyLost);
        let lost: HashSet<&str> = lost.map(|one| one.recipient.as_str()).collect();
        let twice: Vec<_> = arrived
            .iter()
            .filter(|(recipient, count)| **count > 1 && !lost.contains(recipient.as_str()))
            .collect();
        assert!(twice.is_empty(), "more than once: {twice:?}");
        let broken = attempts().filter(|one| one.outcome == Outcome::Broken).count();
        assert_eq!((lost.len(), broken), (0, 0), "the relay broke connections");
        given.len()
    }
}

/// When what happened to the store.
struct Times {
    gone: Instant,
    returning: Instant,
    back: Instant,
}

impl Times {
    /// Every answer is right for its time, and each protocol's first 250 after the return comes soon.
    fn judge(&self, direction: &str, protocols: &[Protocol], clients: &[Vec<Attempt>]) {
        let mut refusals = 0;
        for one in clients.iter().flatten() {
            let Outcome::Answered(reply) = &one.outcome else { continue };
            if one.is_accepted() {
                let is_away = one.began > self.gone && one.ended < self.returning;
                assert!(!is_away, "passed without the store: {one:?}");
            } else {
                assert_eq!(reply.status(), "451 4.7.5", "{one:?}");
                refusals += 1;
            }
        }
        let first = |attempts: &Vec<Attempt>| {
            let mut passed = attempts.iter().filter(|one| one.is_accepted());
            let first = passed.find(|one| one.began > self.gone).unwrap();
            first.ended.saturating_duration_since(self.back)
        };
        let flows: Vec<Duration> = clients.iter().map(first).collect();
        let before = clients.iter().flatten().filter(|one| one.ended <= self.gone);
        let slowest = before.map(|one| one.ended - one.began).max().unwrap();
        let allowed = BACK_WITHIN + slowest * 2;
        let away = self.back - self.gone;
        println!(
            "{direction}: {slowest:?} for a mail; away {away:?}, {refusals} refused; flows after {flows:?}"
        );
        // Each protocol's first: where one mail keeps the store busy for long (PyKMIP does one thing at a time), the other
        // client of the protocol may be behind it.
        for protocol in [Protocol::Smtp, Protocol::Lmtp] {
            let of_it = flows.iter().zip(protocols).filter(|(_, one)| **one == protocol);
            let first = of_it.map(|(after, _)| *after).min();
            let is_soon = first.is_none_or(|after| after < allowed);
            assert!(is_soon, "{direction}: {flows:?} where {allowed:?} are allowed");
        }
    }
}

/// Makes a domain's certificate known.
fn pin(gate: &Gate, domain: &str, certificate: &Path) {
    let import = ["public-key", "import", "--address", domain, certificate.to_str().unwrap()];
    gate.must(&import, b"");
}

/// The mails of a client, until there are [`MAILS_MAX`].
fn numbered(make: impl Fn(usize) -> Mail) -> impl FnMut() -> Option<Mail> {
    let mut numbers = 0..MAILS_MAX;
    move || numbers.next().map(&make)
}

fn sender(client: usize) -> String {
    format!("writer{client}@nec.example")
}

/// Every third mail has a second, blind recipient, who gets a copy of his own.
fn recipients_of(client: usize, number: usize) -> Vec<String> {
    let copies = if number.is_multiple_of(3) { &["a", "b"][..] } else { &["a"] };
    copies.iter().map(|copy| format!("out.{client}.{number}.{copy}@abc.example")).collect()
}

fn outgoing(client: usize, number: usize) -> Mail {
    let (from, to) = (sender(client), recipients_of(client, number));
    let content = message(&from, &to[0]);
    Mail { from, to, content }
}

/// A mail as abc.example's own sealgate sends it.
fn sealed(sealer: SocketAddr, sealed: &Sink, client: usize, number: usize) -> Mail {
    let to = format!("in.{client}.{number}@nec.example");
    let reply = send_smtp(sealer, BOB, &[&to], &message(BOB, &to));
    assert_eq!(reply.code, 250, "{reply:?}");
    let is_it = |one: &Received| one.recipients.iter().any(|line| address(line) == to);
    let content = sealed.received().into_iter().find(is_it).unwrap().content;
    assert!(!mail::contains(&content, WORDS));
    Mail { from: BOB.to_owned(), to: vec![to], content }
}

/// Named after its first recipient.
fn message(from: &str, to: &str) -> Vec<u8> {
    let entity = format!("Content-Type: text/plain\r\n\r\n{WORDS} for {to}\r\n");
    mail::message(from, to, &name_of(to), entity.as_bytes())
}

/// The name that all recipients of a mail have in common.
fn name_of(recipient: &str) -> String {
    let local = recipient.split('@').next().unwrap();
    local.trim_end_matches(".a").trim_end_matches(".b").to_owned()
}

/// Whether nothing can be read and all that is there is one encryption, of the mail that was meant for him.
fn is_sealed(received: &Received, recipient: &str) -> bool {
    let content = &received.content;
    let kind = mail::header(content, "Content-Type").unwrap_or_default();
    if mail::contains(content, WORDS) || !kind.starts_with("application/pkcs7-mime") {
        return false;
    }
    let id = mail::header(content, "Message-ID").unwrap_or_default();
    let encrypted = mail::decoded_body(content);
    der::Element::at(&encrypted, 0).end == encrypted.len()
        && [ENVELOPED, AUTH_ENVELOPED].contains(&cms::content_type(&encrypted))
        && id.starts_with(&format!("<{}.", name_of(recipient)))
        && !mail::contains(&encrypted, WORDS)
}

/// Whether the mail that was meant for him can be read.
fn is_opened(received: &Received, recipient: &str) -> bool {
    mail::contains(&received.content, &format!("{WORDS} for {recipient}\r\n"))
}

/// What stands between the angle brackets of a command.
fn address(line: &str) -> &str {
    line.split(['<', '>']).nth(1).unwrap()
}

fn text(content: &[u8]) -> String {
    String::from_utf8_lossy(content).into_owned()
}

/// The last arcs of RFC 5652 §6.1 and RFC 5083 §2.1.
const ENVELOPED: u8 = 3;
const AUTH_ENVELOPED: u8 = 23;
