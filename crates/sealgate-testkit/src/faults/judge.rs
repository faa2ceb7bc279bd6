//! The judgement over the books: every copy too many needs a fault that allows it, and every refusal for good a cause.

use std::time::{Duration, Instant};

use super::ledger::{
    Books, Door, Entry, GARBLED, GREETING_GARBLED, Hit, Kept, Side, Strike, Told, Try,
};
use super::summary::Summary;

impl Books {
    /// Compares what was told of one recipient with what is held for him.
    pub(super) fn judge_recipient(
        &self,
        message: usize,
        entry: &Entry,
        recipient: &str,
        summary: &mut Summary,
    ) {
        let copies = self.copies.get(&(message, recipient.to_owned()));
        let copies = copies.map(Vec::as_slice).unwrap_or_default();
        Case { books: self, message, entry, recipient, copies }.judge(summary);
    }
}

/// A recipient of a message.
#[derive(Clone, Copy)]
struct Case<'b> {
    books: &'b Books,
    message: usize,
    entry: &'b Entry,
    recipient: &'b str,
    copies: &'b [Kept],
}

impl<'b> Case<'b> {
    fn judge(self, summary: &mut Summary) {
        let heard = |class: u16| self.replies().any(|(_, told)| told.heard() == class);
        let accepted = heard(2);
        summary.delivered += usize::from(accepted);
        summary.bounced += usize::from(!accepted && heard(5));
        if accepted && self.copies.is_empty() {
            if self.notified().next().is_some() {
                summary.notified += 1;
            } else {
                summary.lost.push(self.said());
            }
        }
        self.judge_refusals(summary);
        for number in self.notified() {
            if self.copies.iter().any(|copy| copy.number == number) {
                summary.contradicted.push(format!("{}: notified of {number}", self.said()));
            }
        }
        // Of several copies one is right; every other was stored in an attempt that was not told so.
        let is_uncertain =
            |copy: &&Kept| self.told(copy.number).is_none_or(|told| told.heard() != 2);
        let extra = self.copies.len().saturating_sub(1);
        let mut explained = 0;
        for copy in self.copies.iter().filter(is_uncertain).take(extra) {
            explained += 1;
            match self.window(*copy, self.next_copy(*copy)) {
                Some(window) => *summary.duplicated.entry(window).or_default() += 1,
                None => {
                    let number = copy.number;
                    summary.unexplained.push(format!("{}: that of {number}", self.said()));
                }
            }
        }
        for _ in explained..extra {
            summary.unexplained.push(self.said());
        }
        // REQUIREMENTS O5: not even the first copy.
        let is_without_dot = |copy: &&Kept| {
            let attempt = &self.entry.attempts[copy.number];
            !attempt.dot || attempt.cut_short
        };
        for copy in self.copies.iter().filter(is_without_dot) {
            let number = copy.number;
            let word = if self.entry.attempts[number].dot { "passed" } else { "was sent" };
            summary.unexplained.push(format!("{}: no dot {word} in {number}", self.said()));
        }
    }

    /// A refusal for good has a cause, and whoever was refused has no copy of that attempt, and none of an earlier one that the
    /// relay had to know of; unless the one reply for all says that he has it.
    fn judge_refusals(self, summary: &mut Summary) {
        for (number, told) in self.replies().filter(|(_, told)| told.meant() == 5) {
            if !self.is_due(number, told) {
                summary.refused.push(format!("{}: {number} without cause", self.said()));
            }
            let is_known = |copy: &Kept| {
                copy.number < number && copy.answered && self.window(*copy, Some(number)).is_none()
            };
            let contradicts = |copy: &Kept| copy.number == number || is_known(copy);
            if !self.is_named_as_served(told) && self.copies.iter().any(contradicts) {
                summary.contradicted.push(format!("{}: refused by {number}", self.said()));
            }
        }
        for (number, told) in self.replies().filter(|(_, told)| told.meant() != 5) {
            if told.heard() == 5 && !self.is_garbled(number) {
                summary.refused.push(format!("{}: {number} without cause", self.said()));
            }
        }
    }

    /// Whether this refusal for good was to be, or something befell the attempt that brings one with this status.
    fn is_due(self, number: usize, told: &Told) -> bool {
        let status = told.status();
        let is_to_be = |(whom, with): &(String, &'static str)| {
            let is_about = whom == self.recipient || told.said.contains(&format!("<{whom}>"));
            *with == status && is_about
        };
        let is_refused_by_a_sink = || {
            let is_about = |strike: &Strike| {
                let is_joint = self.entry.mail.door != Door::InsideLmtp;
                let to = &strike.recipients;
                is_joint || to.is_empty() || to.iter().any(|one| one == self.recipient)
            };
            let mut strikes = self.strikes(number, Side::Downstream, &["sink Permanent"]);
            strikes.any(is_about) || self.was_turned_away(number)
        };
        self.entry.mail.refused.iter().any(is_to_be)
            || SINK_STATUSES.contains(&status) && is_refused_by_a_sink()
            || status.starts_with("5.7.") && self.books.clock_was_back(&self.entry.attempts[number])
            || self.is_garbled(number)
    }

    /// Whether one bit of some reply's code may have made this attempt's refusal.
    fn is_garbled(self, number: usize) -> bool {
        self.is_struck(number, Side::Upstream, &[GARBLED])
            || self.is_struck(number, Side::Downstream, &[GARBLED, GREETING_GARBLED])
    }

    /// Whether the relay may believe at this attempt what the mail server inside said of the recipient earlier: shortly before, or to
    /// an earlier attempt, which all its recipients were put off for.
    fn was_turned_away(self, number: usize) -> bool {
        let attempt = &self.entry.attempts[number];
        let ended = attempt.ended.unwrap_or_else(Instant::now);
        let is_him = |whom: &Option<String>| whom.as_deref().is_none_or(|to| to == self.recipient);
        let was_put_off = |when: Instant| {
            let earlier = self.entry.attempts.iter().take(number);
            let mut until = earlier.map(|one| (one.began, one.ended.unwrap_or(ended)));
            until.any(|(began, ended)| began <= when && when <= ended)
        };
        self.entry.mail.door == Door::OutsideSmtp
            && self.books.turned_away.iter().any(|(when, whom)| {
                let is_believed = attempt.began <= *when + BELIEVED || was_put_off(*when);
                is_him(whom) && *when <= ended && is_believed
            })
    }

    /// The row of REQUIREMENTS §5 that allows a copy of an attempt that was not told 250; `next` was to find that it is there.
    fn window(self, copy: Kept, next: Option<usize>) -> Option<&'static str> {
        let number = copy.number;
        let jointly = self.entry.mail.door != Door::InsideLmtp;
        let forgotten = || {
            let attempts = [Some(number), next].into_iter().flatten();
            let mut attempts = attempts.filter_map(|number| self.entry.attempts.get(number));
            attempts.any(|attempt| self.books.forgot_in(attempt))
        };
        let struck = |side, kinds: &[&str]| self.is_struck(number, side, kinds);
        let Some(told) = self.told(number) else {
            return if struck(Side::Upstream, &BREAKS) {
                Some("14 upstream gone before the reply")
            } else if struck(Side::Relay, &FAILURES) {
                Some("9-10 relay failed after the dot")
            } else {
                None
            };
        };
        if told.is_garbled() && struck(Side::Upstream, &[GARBLED]) {
            Some("14 reply garbled on its way up")
        } else if jointly && copy.answered && forgotten() {
            Some("12 a part was deferred")
        } else if struck(Side::Downstream, if copy.answered { &LOSSES } else { &[""] }) {
            Some("9, 11 answer lost downstream")
        } else if struck(Side::Relay, &FAILURES) {
            Some("6 relay failed after the dot, told 451")
        } else {
            None
        }
    }

    /// The attempts whose sender was notified that this recipient does not get it.
    fn notified(self) -> impl Iterator<Item = usize> {
        let key = (self.message, self.recipient.to_owned());
        self.books.notified.get(&key).into_iter().flatten().copied()
    }

    fn next_copy(self, copy: Kept) -> Option<usize> {
        self.copies.iter().map(|one| one.number).filter(|number| *number > copy.number).min()
    }

    fn told(self, number: usize) -> Option<&'b Told> {
        self.entry.attempts[number].told.get(self.recipient)
    }

    /// By attempt.
    fn replies(self) -> impl Iterator<Item = (usize, &'b Told)> {
        (0..self.entry.attempts.len()).filter_map(move |number| Some((number, self.told(number)?)))
    }

    /// Whether one reply for all, which refuses others, says that this one has it.
    fn is_named_as_served(self, told: &Told) -> bool {
        self.entry.mail.door != Door::InsideLmtp
            && told.said.contains("all others have it")
            && !told.said.contains(&format!("<{}>", self.recipient))
    }

    /// Whether such a fault of this side hit this attempt, or may have: where nobody knows whom it hit, one that came while
    /// the attempt lasted.
    fn is_struck(self, number: usize, side: Side, kinds: &[&str]) -> bool {
        self.strikes(number, side, kinds).next().is_some()
    }

    fn strikes<'k>(
        self,
        number: usize,
        side: Side,
        kinds: &'k [&str],
    ) -> impl Iterator<Item = &'b Strike> + use<'b, 'k> {
        let attempt = &self.entry.attempts[number];
        let (began, ended) = (attempt.began, attempt.ended.unwrap_or_else(Instant::now));
        let hits = move |strike: &&Strike| match strike.hit {
            Hit::Nobody => false,
            Hit::One(hit) => hit.message == self.message && hit.number == number,
            Hit::Anybody => began <= strike.when && strike.when <= ended + NOTICED_WITHIN,
        };
        let strikes = self.books.strikes.iter().filter(move |strike| strike.side == side);
        strikes.filter(hits).filter(|strike| strike.is_one_of(kinds))
    }

    /// All that was told and is held, to be read.
    fn said(self) -> String {
        let replies: Vec<String> = self
            .replies()
            .map(|(number, told)| format!("{number}: {} {}", told.code, told.said))
            .collect();
        let Self { message, recipient, copies, .. } = self;
        let door = self.entry.mail.door;
        format!("m{message} {door:?} {recipient} told {replies:?}, holds {copies:?}")
    }
}

impl Strike {
    fn is_one_of(&self, kinds: &[&str]) -> bool {
        kinds.iter().any(|kind| self.kind.starts_with(kind))
    }
}

impl Books {
    /// Whether the wall clock was so far behind that certificates were not valid yet.
    fn clock_was_back(&self, attempt: &Try) -> bool {
        let ended = attempt.ended.unwrap_or_else(Instant::now);
        let mut strikes = self.strikes.iter().filter(|strike| strike.kind == CLOCK_BACK);
        strikes.any(|strike| strike.when <= ended && attempt.began <= strike.when + CLOCK_WRONG_MAX)
    }

    /// Whether this attempt fell into a time in which the relay could not use its done-record because of a fault: it may then
    /// have written or found none. A done-record that fails by itself explains nothing.
    fn forgot_in(&self, attempt: &Try) -> bool {
        let ended = attempt.ended.unwrap_or_else(Instant::now) + NOTICED_WITHIN;
        let meanwhile =
            |forgot: &&Instant| attempt.began <= **forgot + FORGETS && **forgot <= ended;
        let takes = |strike: &Strike| match strike.side {
            Side::Stores => strike.is_one_of(&["database", "disk"]),
            Side::Relay => strike.is_one_of(&HOLDS),
            Side::Downstream | Side::Upstream | Side::Names => false,
        };
        self.forgot.iter().filter(meanwhile).any(|forgot| {
            self.strikes.iter().any(|strike| {
                takes(strike)
                    && strike.when <= *forgot + NOTICED_WITHIN
                    && *forgot <= strike.when + AWAY_MAX
            })
        })
    }
}

/// What the relay did to itself is read off its log a little later.
const NOTICED_WITHIN: Duration = Duration::from_millis(500);
/// How long the relay does not ask for a done-record again that was away, and a little.
const FORGETS: Duration = Duration::from_millis(2500);
/// How long a store stays away, or the relay stopped, or without descriptors, and until that is noticed.
const AWAY_MAX: Duration = Duration::from_secs(10);
/// What ends a client's transaction before it has heard everything.
const BREAKS: [&str; 4] = ["line Cut", "line Truncated", GARBLED, "client Leave"];
/// What makes the relay forget what it has heard, or hear it too late.
const FAILURES: [&str; 6] = [
    "killed",
    "terminated",
    "point Kill",
    "point Panic",
    "point Stop, for longer",
    "stopped from outside, for longer",
];
/// What keeps a living relay from its database; who was killed raises no alarm.
const HOLDS: [&str; 6] = [
    "terminated",
    "no descriptors",
    "point Delay",
    "point Panic",
    "point Stop, for longer",
    "stopped from outside, for longer",
];
/// What may lose an answer that a sink gave; a sink that refuses another recipient loses none. After garbage the relay does
/// not listen to what the sink says of others (LMTP).
const LOSSES: [&str; 5] =
    ["line Cut", "line Truncated", GARBLED, "sink AnswerThenClose", "sink Garbage"];
/// Of what sinks say for good, of a message that was opened on the way, and of one that knows no HELO after it refused EHLO.
const SINK_STATUSES: [&str; 3] = ["5.7.0", "5.7.1", "5.5.1"];
/// How long the relay believes that a mailbox is not there (`REFUSED_FOR` in crates/sealgate/src/relay/recipients.rs), and a
/// little.
const BELIEVED: Duration = Duration::from_secs(61);
/// As the keeper says it.
const CLOCK_BACK: &str = "clock -2880 minutes off";
/// How long a clock is wrong, and a little.
const CLOCK_WRONG_MAX: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::faults::ledger::{Attempt, Connection, Ledger, Mail};

    fn mail(door: Door, recipients: &[&str]) -> Mail {
        let recipients = recipients.iter().map(|name| (*name).to_owned()).collect();
        Mail {
            door,
            from: "a@nec.example".to_owned(),
            recipients,
            content: Vec::new(),
            refused: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// A client's.
    fn connection() -> (TcpListener, Connection) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener, Connection::of_client(Side::Upstream, &stream).unwrap())
    }

    /// An attempt whose client comes to its final dot.
    fn begin(ledger: &Ledger, message: usize) -> Attempt {
        let (attempt, _) = ledger.begin(message);
        ledger.dot(attempt);
        attempt
    }

    #[test]
    fn no_copy_comes_of_an_attempt_whose_client_never_sent_its_dot() {
        let (_listener, connection) = connection();
        for (dot, cut) in [(false, false), (true, false), (true, true)] {
            let ledger = Ledger::default();
            let message = ledger.submit(|_| mail(Door::InsideLmtp, &["x@abc.example"]));
            let (attempt, _) = ledger.begin(message);
            ledger.struck(Side::Upstream, "client LeaveInContent", Hit::One(attempt));
            ledger.carries(connection, Some(attempt));
            if dot {
                ledger.dot(attempt);
            }
            if cut {
                ledger.cut_short(connection);
            }
            ledger.stored(attempt, "x@abc.example", true);
            ledger.end(attempt);
            assert_eq!(ledger.judge().unexplained.is_empty(), dot && !cut);
        }
    }

    #[test]
    fn told_and_not_held_is_lost_unless_the_sender_was_notified() {
        let ledger = Ledger::default();
        for _ in 0..2 {
            let message = ledger.submit(|_| mail(Door::InsideSmtp, &["x@abc.example"]));
            let attempt = begin(&ledger, message);
            ledger.told(attempt, "x@abc.example", 250, "2.0.0 ok");
            assert!(!ledger.end(attempt));
        }
        assert_eq!(ledger.judge().lost.len(), 2);
        let attempt = Attempt { message: 0, number: 0, jointly: false };
        ledger.notified(attempt, "x@abc.example");
        ledger.stored(Attempt { message: 1, ..attempt }, "x@abc.example", true);
        assert!(ledger.judge().lost.is_empty() && ledger.judge().contradicted.is_empty());
        ledger.stored(attempt, "x@abc.example", true);
        assert_eq!(ledger.judge().contradicted.len(), 1, "the sender was told otherwise");
    }

    #[test]
    fn a_second_copy_needs_a_fault_in_a_window() {
        for struck in [false, true] {
            let ledger = Ledger::default();
            let message = ledger.submit(|_| mail(Door::InsideLmtp, &["x@abc.example"]));
            let first = begin(&ledger, message);
            ledger.stored(first, "x@abc.example", true);
            if struck {
                ledger.struck(Side::Relay, "killed", Hit::Anybody);
            }
            assert!(ledger.end(first));
            let second = begin(&ledger, message);
            ledger.stored(second, "x@abc.example", true);
            ledger.told(second, "x@abc.example", 250, "2.0.0 ok");
            ledger.end(second);
            let summary = ledger.judge();
            assert!(summary.lost.is_empty());
            assert_eq!(summary.unexplained.is_empty(), struck);
            assert_eq!(summary.duplicated.values().sum::<usize>(), usize::from(struck));
        }
    }

    /// A message that was told nothing at its first attempt and 250 at its second, with a copy of each.
    fn told_nothing(befall: impl Fn(&Ledger, Attempt)) -> Summary {
        let ledger = Ledger::default();
        let message = ledger.submit(|_| mail(Door::InsideLmtp, &["x@abc.example"]));
        for number in 0..2 {
            let attempt = begin(&ledger, message);
            ledger.stored(attempt, "x@abc.example", true);
            match number {
                0 => befall(&ledger, attempt),
                _ => ledger.told(attempt, "x@abc.example", 250, "2.0.0 ok"),
            }
            ledger.end(attempt);
        }
        ledger.judge()
    }

    #[test]
    fn a_client_that_was_told_nothing_needs_what_broke_its_own_line_or_the_relay() {
        let (_listener, line) = connection();
        let cases = [
            (Side::Upstream, "line Cut", true),
            (Side::Upstream, "line Garbled", true),
            (Side::Upstream, "client LeaveAtDot", true),
            (Side::Upstream, "line Held", false),
            (Side::Upstream, "line Slow", false),
            (Side::Upstream, "client Nonsense", false),
            (Side::Downstream, "line Cut", false),
            (Side::Relay, "point Kill", true),
            (Side::Relay, "point Stop, for longer than its limits", true),
            (Side::Relay, "point Stop", false),
            (Side::Relay, "point Delay", false),
            (Side::Relay, "reloaded", false),
            (Side::Relay, "clock +60 minutes off", false),
            (Side::Relay, "no descriptors left", false),
        ];
        for (side, kind, explains) in cases {
            let hit = |attempt| match side {
                Side::Relay => Hit::Anybody,
                _ => Hit::One(attempt),
            };
            let befall = |ledger: &Ledger, attempt| ledger.struck(side, kind, hit(attempt));
            assert_eq!(told_nothing(befall).unexplained.is_empty(), explains, "{kind}");
        }
        // A line that breaks before its client has said whose transaction it is hits nobody, one of another attempt, that one.
        for (carried, explains) in [(None, false), (Some(5), false), (Some(0), true)] {
            let befall = |ledger: &Ledger, attempt: Attempt| {
                ledger.carries(line, carried.map(|number| Attempt { number, ..attempt }));
                ledger.struck_connection(line, "line Cut");
            };
            assert_eq!(told_nothing(befall).unexplained.is_empty(), explains, "{carried:?}");
        }
    }

    #[test]
    fn who_was_refused_has_no_copy_whatever_befell_others() {
        let to = ["x@abc.example", "y@xyz.example"];
        let all = "5.7.0 not delivered to <y@xyz.example>, all others have it: no";
        let cases = [
            (Door::InsideSmtp, 554, "5.7.0 never", 1),
            (Door::InsideSmtp, 554, all, 0),
            (Door::InsideLmtp, 554, all, 1),
            (Door::InsideLmtp, 454, "5.7.0 never", 1),
            (Door::InsideLmtp, 551, "4.3.0 not now", 0),
        ];
        for (door, code, said, count) in cases {
            let ledger = Ledger::default();
            let message = ledger.submit(|_| mail(door, &to));
            let attempt = begin(&ledger, message);
            ledger.struck(Side::Relay, "killed", Hit::Anybody);
            ledger.stored(attempt, to[0], true);
            to.iter().for_each(|to| ledger.told(attempt, to, code, said));
            assert_eq!(ledger.judge().contradicted.len(), count, "{door:?} {code} {said}");
        }
    }

    #[test]
    fn a_refusal_for_good_needs_a_cause_of_its_own() {
        const X: &str = "x@abc.example";
        let permanent = (Side::Downstream, "sink Permanent at rcpt");
        let back = (Side::Relay, CLOCK_BACK);
        let cases = [
            (None, 550, "5.7.3 no key", false),
            (None, 451, "4.7.5 no key", true),
            (Some(permanent), 554, "5.7.0 never", true),
            (Some(permanent), 550, "5.7.3 no key", false),
            (Some(permanent), 550, "5.7.7 falsified", false),
            (Some((Side::Downstream, "sink Temporary at rcpt")), 554, "5.7.0 never", false),
            (Some((Side::Relay, "killed")), 554, "5.7.0 never", false),
            (Some(back), 550, "5.7.3 no key", true),
            (Some(back), 550, "5.6.0 no mail", false),
            (Some((Side::Relay, "clock +2880 minutes off")), 550, "5.7.3 no key", false),
            (Some((Side::Stores, "database killed")), 550, "5.7.3 no key", false),
            (None, 551, "4.3.0 not now", false),
            (Some((Side::Upstream, GARBLED)), 551, "4.3.0 not now", true),
        ];
        for (befell, code, said, is_due) in cases {
            let ledger = Ledger::default();
            let message = ledger.submit(|_| mail(Door::InsideLmtp, &[X]));
            let attempt = begin(&ledger, message);
            if let Some((side, kind)) = befell {
                ledger.struck(side, kind, Hit::Anybody);
            }
            ledger.told(attempt, X, code, said);
            ledger.end(attempt);
            assert_eq!(ledger.judge().refused.is_empty(), is_due, "{befell:?} {code} {said}");
        }
    }

    #[test]
    fn what_a_sink_said_of_another_recipient_is_no_cause_where_each_has_a_reply() {
        let to = ["x@abc.example", "y@abc.example"];
        for (door, count) in [(Door::InsideLmtp, 1), (Door::InsideSmtp, 0)] {
            let ledger = Ledger::default();
            let message = ledger.submit(|_| mail(door, &to));
            let attempt = begin(&ledger, message);
            let (kind, about) = ("sink Permanent at rcpt", [to[0].to_owned()]);
            ledger.struck_for(Side::Downstream, kind, Hit::One(attempt), &about);
            to.iter().for_each(|to| ledger.told(attempt, to, 554, "5.7.0 never"));
            assert_eq!(ledger.judge().refused.len(), count, "{door:?}");
        }
    }

    #[test]
    fn who_is_to_be_refused_is_refused_as_it_is_to_be() {
        let to = ["x@abc.example", "y@xyz.example"];
        let cases = [
            ("5.7.3 no key", 1),
            ("5.7.3 no key for <x@abc.example>", 0),
            ("5.7.7 falsified", 2),
            ("5.7.7 falsified <x@abc.example>", 2),
        ];
        for (said, count) in cases {
            let ledger = Ledger::default();
            let refused = vec![(to[0].to_owned(), "5.7.3")];
            let message = ledger.submit(|_| Mail { refused, ..mail(Door::InsideSmtp, &to) });
            let attempt = begin(&ledger, message);
            to.iter().for_each(|to| ledger.told(attempt, to, 550, said));
            assert_eq!(ledger.judge().refused.len(), count, "{said}");
        }
    }

    #[test]
    fn what_the_mail_server_said_of_a_mailbox_is_believed_of_that_one_and_from_outside() {
        const X: &str = "x@nec.example";
        for (door, whom, count) in [
            (Door::OutsideSmtp, Some(X), 0),
            (Door::OutsideSmtp, None, 0),
            (Door::OutsideSmtp, Some("y@nec.example"), 1),
            (Door::InsideSmtp, Some(X), 1),
        ] {
            let ledger = Ledger::default();
            ledger.turned_away(whom);
            let message = ledger.submit(|_| mail(door, &[X]));
            let attempt = begin(&ledger, message);
            ledger.told(attempt, X, 554, "5.7.0 never");
            assert_eq!(ledger.judge().refused.len(), count, "{door:?} {whom:?}");
        }
    }

    #[test]
    fn who_holds_a_copy_is_not_refused_later_unless_the_relay_could_not_know() {
        for (struck, answered, count) in [(false, true, 1), (true, true, 0), (false, false, 0)] {
            let ledger = Ledger::default();
            let message = ledger.submit(|_| mail(Door::InsideSmtp, &["x@abc.example"]));
            let first = begin(&ledger, message);
            ledger.stored(first, "x@abc.example", answered);
            ledger.told(first, "x@abc.example", 451, "4.3.0 not all");
            if struck {
                ledger.struck(Side::Relay, "point Panic", Hit::Anybody);
            }
            ledger.end(first);
            let second = begin(&ledger, message);
            ledger.told(second, "x@abc.example", 554, "5.7.0 never");
            ledger.end(second);
            assert_eq!(ledger.judge().contradicted.len(), count, "{struck} {answered}");
        }
    }

    #[test]
    fn one_reply_for_several_explains_a_second_copy_only_where_a_fault_took_the_done_record() {
        const NOTHING: &[fn(&Ledger)] = &[];
        let database: fn(&Ledger) =
            |ledger| ledger.struck(Side::Stores, "database killed", Hit::Anybody);
        let delayed: fn(&Ledger) = |ledger| ledger.struck(Side::Relay, "point Delay", Hit::Anybody);
        let refused: fn(&Ledger) = |ledger| {
            ledger.struck(Side::Downstream, "sink Temporary at dot, not kept", Hit::Anybody)
        };
        let cut: fn(&Ledger) = |ledger| ledger.struck(Side::Downstream, "line Cut", Hit::Anybody);
        let killed: fn(&Ledger) = |ledger| ledger.struck(Side::Relay, "point Panic", Hit::Anybody);
        let directory: fn(&Ledger) =
            |ledger| ledger.struck(Side::Stores, "directory line Cut", Hit::Anybody);
        let line: fn(&Ledger) =
            |ledger| ledger.struck(Side::Stores, "database line Cut", Hit::Anybody);
        let stopped: fn(&Ledger) = |ledger| ledger.struck(Side::Relay, "point Stop", Hit::Anybody);
        let cases = [
            (NOTHING, None),
            (&[Ledger::forgot], None),
            (&[directory, Ledger::forgot], None),
            (&[stopped, Ledger::forgot], None),
            (&[delayed, Ledger::forgot], Some("12 a part was deferred")),
            (&[line, Ledger::forgot], Some("12 a part was deferred")),
            (&[database], None),
            (&[delayed], None),
            (&[refused], None),
            (&[cut], Some("9, 11 answer lost downstream")),
            (&[killed], Some("6 relay failed after the dot, told 451")),
            (&[database, Ledger::forgot], Some("12 a part was deferred")),
        ];
        // The record is written in the first attempt and asked for in the second.
        for (befell, window) in cases {
            for in_the_second in [false, true] {
                let ledger = Ledger::default();
                let to = ["x@abc.example", "y@xyz.example"];
                let message = ledger.submit(|_| mail(Door::InsideSmtp, &to));
                for number in 0..2 {
                    let attempt = begin(&ledger, message);
                    ledger.stored(attempt, to[0], true);
                    if in_the_second == (number == 1) {
                        befell.iter().for_each(|befall| befall(&ledger));
                    }
                    let (code, said) = [(451, "4.3.0 not all"), (250, "2.0.0 ok")][number];
                    to.iter().for_each(|to| ledger.told(attempt, to, code, said));
                    ledger.end(attempt);
                }
                ledger.stored(Attempt { message, number: 1, jointly: true }, to[1], true);
                let summary = ledger.judge();
                assert_eq!(summary.duplicated.keys().next().copied(), window, "{in_the_second}");
                assert_eq!(summary.unexplained.len(), usize::from(window.is_none()));
            }
        }
    }
}
