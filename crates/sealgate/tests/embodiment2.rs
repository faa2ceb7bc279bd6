//! Embodiment 2: mail clients without any security function, behind a telephone line, a radio network and cable
//! television, send and receive through an ordinary mail server; on the Internet everything is sealed.
//!
//! ```text
//! clients ══ their lines ══ access ── nec (Postfix, Dovecot, sealgate) ── internet ── abc (the same, and its people)
//! ```
//!
//! Every host is a network namespace; no way leads out of them.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

#[path = "embodiment2/clients.rs"]
mod clients;
#[path = "embodiment2/letters.rs"]
mod letters;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use clients::{Account, Client, MailProgram, entity, fetch_by_hand, send_by_hand};
use letters::{letters, long_words};
use sealgate_testkit::dovecot::{Dovecot, PASSWORD};
use sealgate_testkit::gate::{Gate, set};
use sealgate_testkit::mail;
use sealgate_testkit::netns::capture::Capture;
use sealgate_testkit::netns::line::{CATV, Connected, Line, PUBLIC_LINE, RADIO_NETWORK, Shape};
use sealgate_testkit::netns::overheard::Overheard;
use sealgate_testkit::netns::{End, Namespace, join};
use sealgate_testkit::postfix::{Postfix, Settings};
use sealgate_testkit::process;

/// Plain clients correspond over slow lines, and the Internet carries nothing that can be read.
#[test]
fn plain_clients_on_any_network_correspond_and_the_internet_reads_nothing() {
    let bed = Bed::start();
    let inside = Capture::start(&bed.nec.host, "access");
    let outside = Capture::start(&bed.internet, "nec");
    thread::scope(|scope| {
        for (client, line) in &bed.clients {
            let bed = &bed;
            scope.spawn(move || bed.correspond(client, line));
        }
    });
    let (inside, outside) = (inside.stop(), outside.stop());
    for (client, line) in &bed.clients {
        println!("{:10} {}", client.program.name(), line.describe());
        bed.assert_no_key(client);
    }
    println!(
        "{} packets from and to the clients, {} on the Internet",
        inside.packets, outside.packets
    );
    assert_sealed(&Overheard::new(&inside.streams), &Overheard::new(&outside.streams));
}

/// What users set in their programs is what they would set without sealgate: the mail server's name, user, password.
#[test]
fn client_configurations_are_the_ordinary_ones() {
    let written = |server: &str, program: MailProgram| {
        let account = Account { server: server.to_owned(), user: "user".to_owned() };
        program.configuration(&account)
    };
    for program in MailProgram::ALL {
        let with = written("mail.nec.example", program);
        let without = written("mail.plain.example", program);
        assert_eq!(with.len(), without.len());
        for ((name, with), (_, without)) in with.iter().zip(&without) {
            assert_eq!(*with, without.replace("mail.plain.example", "mail.nec.example"), "{name}");
            let text = with.to_ascii_lowercase();
            for word in ["sealgate", "gate", "smime", "pkcs", "pgp", "crypt", "sign", "cert", "key"]
            {
                assert!(!text.contains(word), "{name} of {} says {word}", program.name());
            }
        }
    }
}

/// What is readable inside is sealed outside.
fn assert_sealed(inside: &Overheard, outside: &Overheard) {
    for text in
        ["EHLO ", "MAIL FROM:<fax@nec.example>", "RCPT TO:<fax@nec.example>", "\r\nDATA\r\n"]
    {
        assert!(outside.holds(text), "the capture lacks {text:?}: it has not seen the Internet");
    }
    assert!(outside.holds("application/pkcs7-mime"), "nothing sealed on the Internet");
    assert!(outside.holds("smime.p7m"), "nothing sealed on the Internet");
    for program in MailProgram::ALL {
        for content in letters(program) {
            if program == MailProgram::Fax {
                assert!(inside.reveals_stretch(&content).is_some(), "the search finds no image");
                assert_eq!(outside.reveals_stretch(&content), None, "the image is on the Internet");
                continue;
            }
            let words = long_words(&content);
            assert!(words.len() >= 3, "{words:?}");
            for word in words {
                assert!(inside.reveals(word.as_bytes()).is_some(), "the search finds no {word}");
                let form = outside.reveals(word.as_bytes());
                assert_eq!(form, None, "{word} is on the Internet");
            }
        }
    }
}

struct Bed {
    // Dropped from the top: what uses a host ends before the host.
    clients: Vec<(Client, Connected)>,
    nec: Organisation,
    abc: Organisation,
    internet: Namespace,
    _access: Namespace,
}

impl Bed {
    fn start() -> Self {
        let access = Namespace::new("access", "");
        let internet = Namespace::new("internet", "");
        let nec = Namespace::new("nec", "");
        let abc = Namespace::new("abc", "");
        let end = |host, interface, address| End { host, interface, address };
        join(&end(&nec, "access", "10.0.0.2/30"), &end(&access, "nec", "10.0.0.1/30"));
        join(&end(&nec, "internet", "198.51.100.2/30"), &end(&internet, "nec", "198.51.100.1/30"));
        join(&end(&abc, "internet", "203.0.113.2/30"), &end(&internet, "abc", "203.0.113.1/30"));
        nec.must("ip route add 10.0.0.0/8 via 10.0.0.1");
        nec.must("ip route add 203.0.113.0/30 via 198.51.100.1");
        abc.must("ip route add 198.51.100.0/30 via 203.0.113.1");
        access.forward();
        internet.forward();
        let clients = (1..).zip(MailProgram::ALL).map(|(number, program)| {
            let user = format!("{}@nec.example", program.name());
            let account = Account { server: "mail.nec.example".to_owned(), user };
            let client = Client::new(program, account, "10.0.0.2 mail.nec.example\n");
            let line = connect(&client, &access, number);
            (client, line)
        });
        let clients = clients.collect();
        let mut nec = Organisation::new(nec, "nec.example", "10.0.0.2");
        let mut abc = Organisation::new(abc, "abc.example", "127.0.0.1");
        nec.gate.trust(&abc.gate, &texts(&addresses("abc.example")));
        abc.gate.trust(&nec.gate, &texts(&addresses("nec.example")));
        nec.open("198.51.100.2:25", "203.0.113.2:25");
        abc.open("203.0.113.2:25", "198.51.100.2:25");
        Self { clients, nec, abc, internet, _access: access }
    }

    /// The user of a client writes to somebody at the other organisation, who answers.
    fn correspond(&self, client: &Client, line: &Connected) {
        let user = &client.account.user;
        let [letter, answer] = letters(client.program);
        let partner = format!("{}@abc.example", client.program.name());
        let abc = &self.abc.host;

        let began = Instant::now();
        client.send(&partner, &letter);
        assert_slow(line.line().up, began.elapsed(), &letter);
        self.await_stored(&self.abc, &partner);
        let arrived = fetch_by_hand(abc.connect("127.0.0.1:110"), &partner, PASSWORD);
        assert_arrived(&arrived, &letter, &partner);

        let message = mail::message(&partner, user, "answer", &entity(client.program, &answer));
        send_by_hand(abc.connect("127.0.0.1:25"), &partner, user, &message);
        self.await_stored(&self.nec, user);
        let began = Instant::now();
        let arrived = client.fetch();
        assert_slow(line.line().down, began.elapsed(), &answer);
        assert_arrived(&arrived, &answer, user);
    }

    fn await_stored(&self, organisation: &Organisation, address: &str) {
        let stored =
            process::holds_within(process::PATIENCE, || organisation.mailboxes.stored(address) > 0);
        assert!(stored, "no mail for {address}\n{}\n{}", self.nec.logs(), self.abc.logs());
    }

    /// Neither the client's files nor what else its host sees hold a key.
    fn assert_no_key(&self, client: &Client) {
        for entry in fs::read_dir(client.home.path()).unwrap() {
            let path = entry.unwrap().path();
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            for word in ["BEGIN CERTIFICATE", "PRIVATE KEY", "sealgate.db", "master.key"] {
                assert!(!text.contains(word), "{word} in {}", path.display());
            }
        }
        let sees = |path: &Path| {
            let mut command = client.host.command("test");
            process::run(command.arg("-e").arg(path), b"").ok()
        };
        assert!(sees(client.home.path()), "a client sees its own files");
        for organisation in [&self.nec, &self.abc] {
            assert!(organisation.gate.dir().join("master.key").exists());
            assert!(!sees(&organisation.gate.dir().join("master.key")), "a client sees keys");
        }
    }
}

/// Everything between an organisation's people and the Internet, on one host.
struct Organisation {
    gate: Gate,
    postfix: Option<Postfix>,
    mailboxes: Dovecot,
    domain: &'static str,
    // Where its people find the mail server.
    address: &'static str,
    host: Namespace,
}

impl Organisation {
    fn new(host: Namespace, domain: &'static str, address: &'static str) -> Self {
        let people = addresses(domain);
        let mailboxes = Dovecot::start_within(&host, address.parse().unwrap(), &texts(&people));
        let gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &[domain]);
        for person in &people {
            gate.generate_key(person, "p256");
        }
        Self { gate, postfix: None, mailboxes, domain, address, host }
    }

    /// Starts sealgate between the Internet and the mail server, as the README says.
    fn open(&mut self, outside: &str, next_hop: &str) {
        self.gate.configure(|config| {
            set(config, &["inside", "lmtp"], "127.0.0.1:2024");
            set(config, &["inside", "mail_server"], "smtp://127.0.0.1:2526");
            set(config, &["outside", "smtp"], outside);
            set(config, &["outside", "next_hop"], format!("smtp://{next_hop}"));
        });
        self.gate.start_within(&self.host);
        let smtp: SocketAddr = format!("{}:25", self.address).parse().unwrap();
        let settings = Settings {
            hostname: &format!("mail.{}", self.domain),
            domains: &[self.domain],
            mailboxes: Some(self.mailboxes.lmtp),
            next_hop: "lmtp:inet:127.0.0.1:2024".to_owned(),
            more: "inet_interfaces = all\nmynetworks = 127.0.0.0/8 10.0.0.0/8\n",
            more_services: "127.0.0.1:2526 inet n - n - - smtpd\n  \
                            -o smtpd_relay_restrictions=permit_auth_destination,reject\n",
        };
        self.postfix = Some(Postfix::start_within(&self.host, smtp, &settings));
    }

    fn logs(&self) -> String {
        let postfix = self.postfix.as_ref().map(Postfix::log).unwrap_or_default();
        format!("{}:\n{postfix}\n{}\n{}", self.domain, self.gate.log(), self.mailboxes.log())
    }
}

/// A line for a client, of the kind that its program is used on.
fn connect(client: &Client, access: &Namespace, number: u8) -> Connected {
    let line: Line = match client.program {
        MailProgram::Telephone => RADIO_NETWORK,
        MailProgram::Fax | MailProgram::Swaks => PUBLIC_LINE,
        MailProgram::Curl | MailProgram::Neomutt => CATV,
    };
    let near =
        End { host: &client.host, interface: "line", address: &format!("10.1.{number}.2/30") };
    let far = End {
        host: access,
        interface: &format!("line{number}"),
        address: &format!("10.1.{number}.1/30"),
    };
    let connected = line.connect(&near, &far);
    client.host.must(&format!("ip route add default via 10.1.{number}.1"));
    connected
}

/// One mailbox a program.
fn addresses(domain: &str) -> Vec<String> {
    MailProgram::ALL.iter().map(|program| format!("{}@{domain}", program.name())).collect()
}

fn texts(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

/// The line was really there: a dialogue takes at least four round trips, and content its time.
fn assert_slow(shape: Shape, took: Duration, content: &[u8]) {
    let bits = f64::from(u32::try_from(content.len() * 8).unwrap());
    let least = shape.delay * 8 + Duration::from_secs_f64(bits / f64::from(shape.bits_per_second));
    assert!(took >= least, "{took:?} for what takes {least:?}");
}

/// Opened, verified, and whole to the byte.
fn assert_arrived(message: &[u8], content: &[u8], to: &str) {
    let text = String::from_utf8_lossy(message);
    assert_eq!(mail::decoded_content(mail::signed_part(message)), content, "{to}: {text}");
    let results = mail::header(message, "Authentication-Results").unwrap_or_default();
    assert!(results.contains("smime=pass"), "{to}: {text}");
}
