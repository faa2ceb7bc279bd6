//! What all parties of a run share: chance, the books, and the messages that can be sent.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use super::chance::Chance;
use super::downstream::CANARY;
use super::ledger::{Door, Ledger, Mail};
use super::stores::Stores;
use super::trouble::Orders;
use crate::gate::Gate;

/// The shared part of a run.
#[derive(Debug)]
pub(super) struct World {
    pub(super) chance: Chance,
    pub(super) ledger: Ledger,
    /// What all lines are to do next.
    pub(super) orders: Orders,
    /// A relay that is started now may find that it cannot.
    pub(super) database_is_away: AtomicBool,
    /// Mail from outside, sealed for one of ours each.
    letters: OnceLock<Vec<Letter>>,
}

/// Mail from outside.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    to: Vec<String>,
    content: Vec<u8>,
    /// Stands in what is delivered.
    text: String,
    is_sealed: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            chance: Chance::new(seed),
            ledger: Ledger::default(),
            orders: Orders::default(),
            database_is_away: AtomicBool::new(false),
            letters: OnceLock::new(),
        }
    }

    /// What those outside send; once, before anything is composed.
    pub(super) fn set_letters(&self, letters: Vec<Letter>) {
        self.letters.set(letters).unwrap();
    }

    /// A new message, going out or coming in.
    pub(super) fn compose(&self, number: usize) -> Mail {
        match self.chance.below(10) {
            0..4 => self.outbound(Door::InsideLmtp, number),
            4..7 => self.outbound(Door::InsideSmtp, number),
            _ => self.inbound(number),
        }
    }

    /// One to four recipients in several domains; who is not named in the header gets a copy of his own.
    fn outbound(&self, door: Door, number: usize) -> Mail {
        let mut recipients: Vec<String> = OUTSIDE.iter().map(|name| (*name).to_owned()).collect();
        let count = usize::try_from(1 + self.chance.below(4)).unwrap();
        while recipients.len() > count {
            let at = self.chance.below(u64::try_from(recipients.len()).unwrap());
            recipients.remove(usize::try_from(at).unwrap());
        }
        if self.chance.one_in(15) {
            recipients.push(NO_KEY.to_owned());
        }
        let without_key = recipients.iter().filter(|name| *name == NO_KEY);
        let refused = without_key.map(|name| (name.clone(), "5.7.3")).collect();
        let named = if self.chance.one_in(2) { 1 } else { recipients.len() };
        let lines = if self.chance.one_in(10) { 1500 } else { 10 };
        let message_id = format!("Message-ID: <m{number}@nec.example>");
        let content = format!(
            "From: <{ALICE}>\r\nTo: {}\r\nSubject: number {number}\r\n{message_id}\r\n\
             MIME-Version: 1.0\r\n\r\n{}",
            recipients[..named].join(", "),
            format!("{CANARY} {number} {}\r\n", "x".repeat(50)).repeat(lines),
        );
        let (from, content) = (ALICE.to_owned(), content.into_bytes());
        Mail { door, from, recipients, content, refused, marks: vec![message_id] }
    }

    /// A sealed letter, one with a bit turned over, or a plain one for two.
    fn inbound(&self, number: usize) -> Mail {
        let Letter { to, content, text, is_sealed } = self.chance.pick(self.letters.get().unwrap());
        // Of its own, so that no two messages are the same.
        let number = format!("X-Number: {number}\r\n");
        let mut all = number.clone().into_bytes();
        all.extend_from_slice(&content);
        let mut refused = Vec::new();
        if self.chance.strikes(6) {
            garble(&mut all);
            refused.extend(to.iter().filter(|_| is_sealed).map(|to| (to.clone(), "5.7.7")));
        }
        let (door, from) = (Door::OutsideSmtp, OUTSIDE[0].to_owned());
        Mail { door, from, recipients: to, content: all, refused, marks: vec![number, text] }
    }
}

/// Keys on both sides, and what the one outside sends us.
pub(super) fn make_keys(nec: &Gate, abc: &Gate, stores: &mut Stores) -> Vec<Letter> {
    for address in INSIDE {
        stores.key_host(nec).generate_key(address, "p256");
    }
    for address in OUTSIDE {
        abc.generate_key(address, "p256");
    }
    stores.introduce(nec, abc, &OUTSIDE);
    abc.trust(stores.key_host(nec), &INSIDE);
    stores.serve_keys(nec);
    let text = |to: &str| format!("a line to be read inside by {to}");
    let plain = |to: &str| {
        let from = OUTSIDE[0];
        format!(
            "From: <{from}>\r\nTo: {to}\r\nSubject: in\r\nMessage-ID: <in@abc.example>\r\nMIME-Version: 1.0\r\n\r\n\
             {}",
            format!("{}\r\n", text(to)).repeat(20)
        )
        .into_bytes()
    };
    let mut letters: Vec<Letter> = INSIDE
        .iter()
        .map(|to| {
            let sealed = abc.must(&["seal", "--from", OUTSIDE[0], "--to", to], &plain(to));
            Letter { to: vec![(*to).to_owned()], content: sealed, text: text(to), is_sealed: true }
        })
        .collect();
    let both = INSIDE.map(str::to_owned).to_vec();
    let named = both.join(", ");
    let (content, text) = (plain(&named), text(&named));
    letters.push(Letter { to: both, content, text, is_sealed: false });
    letters
}

/// Makes another letter of one in the last third, which is text or what text was sealed into: no line end.
fn garble(message: &mut [u8]) {
    let from = message.len() * 2 / 3;
    let octet = message[from..].iter_mut().find(|octet| octet.is_ascii_alphanumeric()).unwrap();
    *octet = if *octet == b'A' { b'B' } else { b'A' };
}

/// Has no key, although every mail is to be sealed.
const NO_KEY: &str = "nobody-has-my-key@abc.example";
/// Who sends.
const ALICE: &str = INSIDE[0];
/// Ours.
const INSIDE: [&str; 2] = ["alice@nec.example", "bob@nec.example"];
/// The others.
const OUTSIDE: [&str; 4] =
    ["one@abc.example", "two@def.example", "three@ghi.example", "four@abc.example"];
/// Their domains.
pub(super) const DOMAINS_OUTSIDE: [&str; 3] = ["abc.example", "def.example", "ghi.example"];
