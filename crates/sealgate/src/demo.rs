//! The demonstration: two organisations on this machine, and one mail on its way from A1 to B10 before your eyes.
//!
//! Real relays of this very program with real key stores, run as children; stand-in mail servers and a
//! stand-in Internet in between. Everything listens on loopback and lives in scratch folders that go at the end, which with
//! `--keep` a signal brings about.

use std::io::{self, Write};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use sealgate_core::address::Address;
use tokio::runtime::Runtime;

use self::mail_server::{MailServer, hand_over};
use self::organisation::Organisation;
use crate::relay::Signals;

mod mail_server;
mod organisation;

const ALICE: &str = "alice@nec.example";
const BOB: &str = "bob@abc.example";
const SECRET: &str = "the board meets on Friday at nine";

/// Runs the demonstration; with `keep` it stays up until SIGTERM, SIGINT or SIGHUP.
///
/// # Errors
/// A sentence that says which step failed and why.
pub(crate) fn run(keep: bool, out: &mut impl Write) -> Result<(), String> {
    // Before the first child: a signal that comes while there is one must not leave it behind.
    let signals = Interruption::new().map_err(|error| format!("cannot catch signals: {error}"))?;
    let world = World::start()?;
    let told = |error: io::Error| format!("cannot write: {error}");
    world.show_the_way_there(out).map_err(told)??;
    world.show_falsification(out).map_err(told)??;
    if keep {
        world.invite(out).map_err(told)?;
        signals.wait();
        return Ok(());
    }
    writeln!(
        out,
        "\nAll of it ran on this machine and is gone now; `sealgate demo --keep` leaves it up."
    )
    .map_err(told)
}

/// A signal to end. What it interrupts goes on to its end, which takes seconds.
struct Interruption {
    runtime: Runtime,
    signals: Signals,
}

impl Interruption {
    fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let signals = runtime.block_on(async { Signals::new() })?;
        Ok(Self { runtime, signals })
    }

    fn wait(self) {
        let Self { runtime, mut signals } = self;
        runtime.block_on(async {
            tokio::select! {
                _ = signals.terminate.recv() => {}
                _ = signals.interrupt.recv() => {}
                _ = signals.hang_up.recv() => {}
            }
        });
    }
}

struct World {
    /// Alice's mail server.
    nec_mail: MailServer,
    /// What lies between the two proxies.
    internet: MailServer,
    /// Bob's mail server.
    abc_mail: MailServer,
    _nec: Organisation,
    _abc: Organisation,
}

impl World {
    fn start() -> Result<Self, String> {
        let server =
            |name: &str| MailServer::start(name).map_err(|error| format!("{name}: {error}"));
        let (nec_mail, abc_mail) = (server("nec.example")?, server("abc.example")?);
        let internet = server("internet.example")?;
        let mut nec =
            Organisation::found("nec.example", ALICE, nec_mail.address(), internet.address())?;
        let mut abc =
            Organisation::found("abc.example", BOB, abc_mail.address(), internet.address())?;
        nec.get_to_know(&abc, BOB)?;
        abc.get_to_know(&nec, ALICE)?;
        nec_mail.send_through(nec.start()?.inside);
        let doors = abc.start()?;
        abc_mail.send_through(doors.inside);
        internet.send_through(doors.outside);
        Ok(Self { nec_mail, internet, abc_mail, _nec: nec, _abc: abc })
    }

    fn show_the_way_there(&self, out: &mut impl Write) -> io::Result<Result<(), String>> {
        let mail = format!(
            "From: Alice <{ALICE}>\r\nTo: Bob <{BOB}>\r\nSubject: agenda\r\nDate: Mon, 15 Jun 2026 10:00:00 +0000\r\n\
             Message-ID: <1@nec.example>\r\n\r\nBob,\r\n{SECRET}.\r\nAlice\r\n"
        );
        writeln!(
            out,
            "Two organisations, nec.example and abc.example, each with a mail server behind a sealgate.\n"
        )?;
        writeln!(
            out,
            "A1  Alice's client, which knows nothing of cryptography, gives her mail server this mail:\n"
        )?;
        quote(out, &mail)?;
        let reply = match self.submit(&mail) {
            Ok(reply) => reply,
            Err(error) => return Ok(Err(error)),
        };
        writeln!(out, "A2  The mail server sees that {BOB} is not in its LAN,")?;
        writeln!(out, "A3  and hands the mail, and only such mail,")?;
        writeln!(out, "A4  as ordinary text, over LMTP, to sealgate.")?;
        writeln!(
            out,
            "A5  sealgate finds Bob's public key in its public key store and encrypts with it;"
        )?;
        writeln!(
            out,
            "A6  it finds Alice's secret key in its secret key store and signs with that (inside the encryption);"
        )?;
        writeln!(out, "A7  and sends this to the Internet:\n")?;
        let Some(wire) = self.internet.last() else {
            return Ok(Err(format!(
                "nothing went over the wire; the mail server was told: {reply}"
            )));
        };
        let wire = String::from_utf8_lossy(&wire).into_owned();
        quote_start(out, &wire)?;
        if wire.contains(SECRET) {
            return Ok(Err("the wire copy holds the plain text".to_owned()));
        }
        writeln!(out, "    (no word of the body is in it)\n")?;
        let Some(arrived) = self.abc_mail.last() else {
            return Ok(Err(format!(
                "nothing arrived at abc.example; the mail server was told: {reply}"
            )));
        };
        writeln!(out, "B1  abc.example's sealgate receives it from the Internet,")?;
        writeln!(out, "B2  takes the originator's public key,")?;
        writeln!(out, "B3  and compares signature and digest: the mail is whole.")?;
        writeln!(out, "B4  With Bob's secret key it has decrypted the mail to ordinary text;")?;
        writeln!(out, "B5  it hands that over to Bob's mail server,")?;
        writeln!(out, "B6  (what is falsified it would refuse: see below)")?;
        writeln!(
            out,
            "B7  which takes it, and only then every 250 goes back to Alice's mail server: {reply}"
        )?;
        writeln!(out, "B8  Bob's client, which knows nothing of cryptography, asks for mail,")?;
        writeln!(out, "B9  the mail server returns it,")?;
        writeln!(out, "B10 and Bob reads:\n")?;
        let arrived = String::from_utf8_lossy(&arrived).into_owned();
        let shown =
            arrived.split_once(SIGNATURE_PART).map_or(arrived.as_str(), |(before, _)| before);
        quote(out, &format!("{shown}{SIGNATURE_PART}\n..."))?;
        if !arrived.contains(SECRET) || !arrived.contains("smime=pass") {
            return Ok(Err("the mail did not arrive opened and verified".to_owned()));
        }
        Ok(Ok(()))
    }

    fn show_falsification(&self, out: &mut impl Write) -> io::Result<Result<(), String>> {
        writeln!(
            out,
            "B6  Now somebody on the Internet changes one bit of the next mail on its way."
        )?;
        let before = self.abc_mail.count();
        self.internet.falsifies.store(true, Ordering::SeqCst);
        let mail = format!(
            "From: Alice <{ALICE}>\r\nTo: Bob <{BOB}>\r\nSubject: more\r\n\r\n{SECRET}, again.\r\n"
        );
        let reply = self.submit(&mail);
        self.internet.falsifies.store(false, Ordering::SeqCst);
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return Ok(Err(error)),
        };
        writeln!(
            out,
            "    abc.example's sealgate answers inside the SMTP session:\n\n    {reply}\n"
        )?;
        if !reply.contains("5.7.7") || self.abc_mail.count() != before {
            return Ok(Err("the falsified mail was not refused".to_owned()));
        }
        writeln!(
            out,
            "    and nothing of it enters the LAN: Bob's mail server was not even connected to."
        )?;
        Ok(Ok(()))
    }

    /// Alice's client.
    fn submit(&self, mail: &str) -> Result<String, String> {
        let address = |text: &str| Address::parse(text).map_err(|error| error.to_string());
        let message = Bytes::from(mail.to_owned());
        let protocol = sealgate_core::smtp::Protocol::Smtp;
        hand_over(
            self.nec_mail.address(),
            protocol,
            Some(&address(ALICE)?),
            &[address(BOB)?],
            &message,
        )
        .map(|reply| reply.to_string())
        .map_err(|error| format!("Alice's mail server: {error}"))
    }

    fn invite(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "\nIt stays up until you press Ctrl-C. Be Alice, with any mail client, or for example:\n"
        )?;
        writeln!(
            out,
            "    swaks --server {} --from {ALICE} --to {BOB}\n",
            self.nec_mail.address()
        )?;
        writeln!(out, "or Bob:\n")?;
        writeln!(
            out,
            "    swaks --server {} --from {BOB} --to {ALICE}\n",
            self.abc_mail.address()
        )?;
        writeln!(out, "What arrives, and what crosses the Internet, is printed here.")?;
        self.nec_mail.print_arrivals("arrived at nec.example");
        self.abc_mail.print_arrivals("arrived at abc.example");
        self.internet.print_arrivals("on the Internet");
        out.flush()
    }
}

/// A message, indented.
fn quote(out: &mut impl Write, text: &str) -> io::Result<()> {
    for line in text.lines() {
        writeln!(out, "    | {line}")?;
    }
    writeln!(out)
}

/// The header section and a few lines.
fn quote_start(out: &mut impl Write, text: &str) -> io::Result<()> {
    let body_at = text.lines().position(str::is_empty).unwrap_or(0);
    let shown: Vec<&str> = text.lines().take(body_at.saturating_add(BODY_LINES_SHOWN)).collect();
    quote(out, &format!("{}\n...", shown.join("\n")))
}

const BODY_LINES_SHOWN: usize = 4;
/// What follows is base64.
const SIGNATURE_PART: &str = "Content-Type: application/pkcs7-signature";
