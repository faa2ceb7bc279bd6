//! What an attacker learns whose mail the mail server refuses, to some of its recipients or for what it lacks: it shows neither
//! whether a ciphertext opened, nor for whom (REQUIREMENTS 0.1, D25).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use sealgate_testkit::cms::{Target, locate};
use sealgate_testkit::mail;
use sealgate_testkit::peer::{Cipher, Transport};
use sealgate_testkit::sink::{Protocol, Sink, Stage};

use super::variants::{Variant, flipped, with_recipient_of};
use super::{ALICE, Attacker, CANARY, CAROL, Place, World, mail_of};

/// Has a mailbox and no key.
const DAVE: &str = "dave@nec.example";

/// What the mail server says to whom, and where.
#[derive(Clone, Copy, Debug)]
struct Refused {
    at: &'static str,
    whom: &'static str,
    says: &'static str,
}

impl Refused {
    fn answer(self, stage: &Stage) -> Option<String> {
        let is_meant = match stage {
            Stage::Rcpt(line) => self.at == "RCPT" && line.contains(self.whom),
            // Of every copy alike: who is in it is not in the command.
            Stage::Data => self.at == "DATA",
            Stage::Dot(lines) => self.at == "dot" && lines.contains(self.whom),
            _ => false,
        };
        is_meant.then(|| format!("{}\r\n", self.says))
    }
}

/// All that a mail server may say, to one of two recipients.
fn refusals() -> Vec<Refused> {
    let mut all = Vec::new();
    for says in ["550 5.7.1 spam", "552 5.2.2 mailbox full", "450 4.2.1 not now"] {
        for at in ["RCPT", "dot"] {
            all.extend([ALICE, DAVE].map(|whom| Refused { at, whom, says }));
        }
        all.push(Refused { at: "DATA", whom: ALICE, says });
    }
    all
}

/// A captured mail as it was, and what an attacker makes of it, with and without a second name in it.
fn captured(world: &World) -> [Vec<Variant>; 2] {
    let unsigned = format!("Content-Type: text/plain\r\n\r\n{CANARY}\r\n");
    let opens = world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, unsigned.as_bytes());
    let content = locate(&opens, Target::EncryptedContent);
    let key = locate(&opens, Target::EncryptedKey);
    let mut variants = vec![
        ("opens", opens.clone()),
        ("padding", flipped(&opens, content.end - 17, 0x55)),
        ("last octet", flipped(&opens, content.end - 1, 1)),
        ("key", flipped(&opens, key.start + 100, 1)),
        ("length of the key", world.with_key(&opens, &[7; 16])),
        ("garbage", world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, &[0xe4; 200])),
        ("signed", world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, &world.signed())),
    ];
    let mut broken = world.signed();
    let at = mail::find(&broken, CANARY.as_bytes()).unwrap();
    broken[at] ^= 1;
    variants.push(("signature", world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, &broken)));
    let with_name = |(what, cms): &Variant| (*what, with_recipient_of(world, cms));
    let named = variants.iter().map(with_name).collect();
    [variants, named]
}

#[test]
fn what_the_mail_server_refuses_to_one_of_several_tells_nothing() {
    for protocol in [Protocol::Smtp, Protocol::Lmtp] {
        let refused: Arc<Mutex<Option<Refused>>> = Arc::default();
        let now = Arc::clone(&refused);
        let sink = Sink::scripted(protocol, move |stage| (*now.lock().unwrap())?.answer(stage));
        let world = passing(sink);
        let [alone, with_carol] = captured(&world);
        let mut asked = 0;
        let mut replies = BTreeSet::new();
        for refusal in [None].into_iter().chain(refusals().into_iter().map(Some)) {
            *refused.lock().unwrap() = refusal;
            for (to, variants) in [
                (&[ALICE][..], &alone),
                (&[ALICE, DAVE], &alone),
                (&[DAVE, ALICE], &alone),
                (&[CAROL, DAVE, ALICE], &alone),
                (&[DAVE, ALICE, CAROL], &with_carol),
            ] {
                asked += 1;
                // Nobody has it from an earlier attempt.
                let subject = format!("captured {asked:03}");
                let said = ask_each(&world, &subject, to, variants);
                let different: BTreeSet<&String> = said.iter().map(|(_, text)| text).collect();
                assert_eq!(different.len(), 1, "{protocol:?} {refusal:?} {to:?}: {said:#?}");
                let last = said[0].1.lines().last().unwrap();
                // Before it has the content it can say nothing of it.
                let is_before = refusal.is_none_or(|refusal| refusal.at != "dot");
                assert!(is_before || !last.contains(" said: "), "{last}");
                replies.insert(last.get(..9).unwrap().to_owned());
            }
        }
        println!("{protocol:?}: {asked} times {} variants: {replies:?}", alone.len());
        let some = ["250 2.0.0", "451 4.7.1", "550 5.7.1"].map(str::to_owned);
        assert!(some.iter().all(|one| replies.contains(one)), "{replies:?}");
        let received = world.sink.received();
        let opened = |content: &[u8]| mail::find(content, CANARY.as_bytes()).is_some();
        assert!(received.iter().any(|one| opened(&one.content)), "what opens is delivered so");
        assert!(received.iter().any(|one| !opened(&one.content)));
    }
}

fn ask_each(
    world: &World,
    subject: &str,
    to: &[&str],
    variants: &[Variant],
) -> Vec<(&'static str, String)> {
    thread::scope(|scope| {
        let ask = |(what, cms): &Variant| {
            let (what, cms) = (*what, cms.clone());
            scope.spawn(move || (what, Attacker::new(world).ask_about(subject, to, &cms).0))
        };
        let asked: Vec<_> = variants.iter().map(ask).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

/// It takes what is in ASCII and small, and refuses the rest before it has seen it.
#[test]
fn nor_does_what_the_mail_server_lacks() {
    for (is_limited, code) in [(false, "\n250 2.0.0 "), (true, "\n552 5.3.4 ")] {
        let limit = Arc::new(AtomicUsize::new(0));
        let offered = Arc::clone(&limit);
        let world = passing(Sink::scripted(Protocol::Smtp, move |stage| {
            let size = offered.load(Ordering::SeqCst);
            let hello = format!("250-x\r\n250-DSN\r\n250 SIZE {size}\r\n");
            matches!(stage, Stage::Hello).then_some(hello)
        }));
        let text = format!("Content-Type: text/plain\r\n\r\n{CANARY} f\u{fc}r dich\r\n");
        let opens = world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, text.as_bytes());
        let content = locate(&opens, Target::EncryptedContent);
        let broken = flipped(&opens, content.end - 17, 0x55);
        if is_limited {
            // Room for the opened mail, and none for the other with our fields on top.
            limit.store(mail_of("captured", &opens).len() + 100, Ordering::SeqCst);
        }
        let said = [&opens, &broken].map(|cms| Attacker::new(&world).ask(cms).0);
        assert!(said.iter().all(|text| text.contains(code)), "{said:#?}");
        assert_eq!(said[0], said[1]);
        let received = world.sink.received();
        assert_eq!(received.len(), if is_limited { 0 } else { 2 });
        if let [opened, _] = received.as_slice() {
            assert!(mail::find(&opened.content, CANARY.as_bytes()).is_some());
        }
    }
}

/// Unsigned mail is opened, and the mail server is asked at delivery alone.
fn passing(sink: Sink) -> World {
    World::before(sink, Place::Embedded, |gate| {
        gate.set(&["policy", "unauthenticated_encryption"], "pass");
        gate.set(&["limits", "decryption_failures_per_hour_max"], 1_000_000);
        gate.set(&["inside", "check_recipients"], false);
    })
}
