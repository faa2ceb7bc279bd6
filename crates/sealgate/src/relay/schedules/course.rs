//! What a seed decides before a schedule begins: the configuration, the servers, the clients and their mail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sealgate_core::policy::{Decision, Encrypt, Policy, Sign};

use super::books::{Books, Kind, Mail, NEVER, Recipient, SUCCESS, secret};
use super::chance::Chance;
use super::client::ClientPlan;
use super::gate::exchanger;
use super::server::{CONTENT_BYTES_MAX, ServerPlan};
use crate::config::{ClientAddress, Config, DoneRecord};
use crate::relay::listener::Entrance;

/// The beginning of a schedule.
pub(super) struct Course {
    pub(super) books: Books,
    pub(super) servers: Vec<ServerPlan>,
    pub(super) clients: Vec<ClientPlan>,
    pub(super) calm_after: Duration,
    pub(super) asks_for_recipients: bool,
    /// What the trace begins with.
    pub(super) header: Vec<String>,
    /// `None`: each recipient's own.
    next_hop: Option<String>,
    mail_server: String,
    client_address: ClientAddress,
    done_record: DoneRecord,
    reply_pause: Duration,
    connections_max: usize,
    /// Mail is sealed on its way out and opened on its way in.
    with_keys: bool,
}

impl Course {
    /// `run` goes into the messages, so that no two are the same.
    pub(super) fn new(chance: &mut Chance, run: u64, sealed: &[Vec<u8>]) -> Self {
        let weather = *chance.pick(&[0, 10, 20, 40, 40, 80, 120, 300]);
        let lmtp = chance.per_mille(400);
        let next_hop = chance.per_mille(500).then(|| {
            let scheme = if chance.per_mille(400) { "lmtp" } else { "smtp" };
            format!("{scheme}://192.0.2.50:2525")
        });
        let client_address = match chance.below(10) {
            0 => ClientAddress::Proxy,
            1 => ClientAddress::Xclient,
            _ => ClientAddress::None,
        };
        let scheme = if lmtp { "lmtp" } else { "smtp" };
        let done_record =
            if chance.per_mille(120) { DoneRecord::Always } else { DoneRecord::Partial };
        let mut course = Self {
            books: Books::default(),
            servers: Vec::new(),
            clients: Vec::new(),
            calm_after: Duration::from_secs(3600),
            asks_for_recipients: chance.per_mille(500),
            header: Vec::new(),
            next_hop,
            mail_server: format!("{scheme}://192.0.2.100:2526"),
            client_address,
            done_record,
            reply_pause: Duration::from_millis(*chance.pick(&[0, 0, 0, 50, 3000])),
            connections_max: *chance.pick(&[1, 2, 50, 50]),
            with_keys: chance.per_mille(20),
        };
        if course.with_keys {
            course.next_hop.get_or_insert("smtp://192.0.2.50:2525".to_owned());
        }
        course.books.reply_pause = course.reply_pause;
        course.books.asks_for_recipients = course.asks_for_recipients;
        course.place_servers(chance, weather);
        for number in 0..*chance.pick(&[1, 1, 1, 2, 2, 3]) {
            course.place_client(chance, weather, number, run, sealed);
        }
        course.describe();
        course
    }

    /// One message from the mail server for recipients at these servers; nothing goes wrong by itself.
    pub(super) fn quiet(entrance: Entrance, run: u64, exchangers: &[u8]) -> Self {
        let mut chance = Chance::new(0);
        let mut course = Self::new(&mut chance, run, &[]);
        let wide = (CONTENT_BYTES_MAX, CONTENT_BYTES_MAX);
        course.next_hop = None;
        course.with_keys = false;
        course.done_record = DoneRecord::Partial;
        course.reply_pause = Duration::ZERO;
        course.connections_max = 50;
        course.books = Books::default();
        course.books.asks_for_recipients = course.asks_for_recipients;
        let mut mail = course.mail(&mut chance, entrance, run);
        let recipient = |(index, to): (usize, &u8)| {
            Recipient::new(format!("r{index}@[192.0.2.{to}]"), exchanger(*to))
        };
        mail.recipients = exchangers.iter().enumerate().map(recipient).collect();
        (mail.sender_is_null, mail.notify) = (false, None);
        course.books.mails.push(mail);
        course.clients = vec![ClientPlan {
            entrance,
            peer: SocketAddr::from(([127, 0, 0, 1], 4000)),
            messages: vec![0],
            sender: "alice@nec.example",
            per_mille: 0,
            room: wide,
            slow: None,
            retry_after: Duration::from_secs(60),
            leaves_after: None,
            old: false,
        }];
        let server = |address| ServerPlan {
            address,
            lmtp: address == mail_server_address() && course.mail_server.starts_with("lmtp"),
            proxy: false,
            keywords: vec!["DSN"],
            room: wide,
            greets_after: Duration::ZERO,
            slow: None,
            per_mille: 0,
        };
        let exchangers = exchangers.iter().map(|to| exchanger(*to));
        course.servers = exchangers.chain([mail_server_address()]).map(server).collect();
        course.header.clear();
        course
    }

    /// Its part of the configuration.
    pub(super) fn configure(&self, config: &mut Config) {
        if let Some(next_hop) = &self.next_hop {
            config.outside.next_hop = next_hop.parse().unwrap();
        }
        config.inside.mail_server = self.mail_server.parse().unwrap();
        config.inside.client_address = self.client_address;
        config.inside.check_recipients = self.asks_for_recipients;
        config.inside.reply_pause = self.reply_pause;
        config.done_record = self.done_record;
        config.limits.connections_per_next_hop_max = self.connections_max;
        if self.with_keys {
            config.policy = Arc::new(with_keys(&config.policy));
        }
    }

    fn place_servers(&mut self, chance: &mut Chance, weather: u64) {
        let mut places: Vec<(SocketAddr, bool)> =
            (1..=EXCHANGERS).map(|number| (exchanger(number), false)).collect();
        if let Some(next_hop) = &self.next_hop {
            places = vec![(next_hop_address(), next_hop.starts_with("lmtp"))];
        }
        places.push((mail_server_address(), self.mail_server.starts_with("lmtp")));
        for (address, lmtp) in places {
            let inside = address == mail_server_address();
            let xclient = inside && matches!(self.client_address, ClientAddress::Xclient);
            let old = !lmtp && !xclient && !self.with_keys && chance.per_mille(30);
            let mut keywords = Vec::new();
            if !old {
                keywords.extend(chance.per_mille(700).then_some("PIPELINING"));
                keywords.extend(chance.per_mille(700).then_some("8BITMIME"));
                keywords.extend(chance.per_mille(700).then_some("SIZE 1000000"));
                keywords.extend(xclient.then_some("XCLIENT NAME ADDR PORT PROTO HELO"));
                // What is sealed shows by ENVID only whose it is.
                let dsn = self.with_keys || chance.per_mille(970);
                keywords.extend(dsn.then_some("DSN"));
            }
            let slow = (!old && chance.per_mille(40 + weather / 2)).then(|| {
                let most = 1 + chance.index(4000);
                (most, Duration::from_millis(chance.below(2000)))
            });
            let wide = CONTENT_BYTES_MAX * 2;
            let narrow = *chance.pick(&[60, 250, 1000, 4000]);
            let per_mille = if chance.per_mille(300) { weather / 4 } else { weather };
            self.servers.push(ServerPlan {
                address,
                lmtp,
                proxy: inside && matches!(self.client_address, ClientAddress::Proxy),
                keywords,
                room: if slow.is_some() || chance.per_mille(50) {
                    (narrow, narrow)
                } else {
                    (wide, wide)
                },
                greets_after: Duration::ZERO,
                slow,
                per_mille,
            });
        }
    }

    fn place_client(
        &mut self,
        chance: &mut Chance,
        weather: u64,
        number: usize,
        run: u64,
        sealed: &[Vec<u8>],
    ) {
        let entrances = [Entrance::InsideLmtp, Entrance::InsideSmtp, Entrance::OutsideSmtp];
        let entrance = *chance.pick(&entrances);
        let messages = *chance.pick(&[1, 1, 1, 1, 2, 3]);
        let first = self.books.mails.len();
        for _ in 0..messages {
            let mut mail = self.mail(chance, entrance, run);
            if self.with_keys {
                let number = self.books.mails.len();
                mail.keep_secret(entrance, run, number, sealed);
            }
            self.books.mails.push(mail);
        }
        let outside = entrance == Entrance::OutsideSmtp;
        let host = if outside { [198, 51, 100, 7] } else { [127, 0, 0, 1] };
        let slow = chance.per_mille(30).then(|| {
            let most = 1 + chance.index(50);
            (most, Duration::from_millis(chance.below(3000)))
        });
        let wide = CONTENT_BYTES_MAX * 2;
        let narrow = 1 + chance.index(500);
        let inside = mail_server_address();
        let mut reached = self.servers.iter().filter(|one| (one.address == inside) == outside);
        let old = reached.any(|server| !server.offers_dsn());
        self.clients.push(ClientPlan {
            entrance,
            peer: SocketAddr::from((host, 4000 + u16::try_from(number).unwrap())),
            messages: (first..first + messages).collect(),
            sender: if outside { "bob@abc.example" } else { "alice@nec.example" },
            per_mille: if chance.per_mille(300) { 0 } else { weather },
            room: (wide, if slow.is_some() { narrow } else { wide }),
            slow,
            // Whose copy it is shows only where a server takes ENVID: else no two attempts may overlap.
            retry_after: Duration::from_secs(if old { 700 } else { *chance.pick(&[0, 60, 700]) }),
            leaves_after: None,
            old,
        });
    }

    fn mail(&self, chance: &mut Chance, entrance: Entrance, run: u64) -> Mail {
        let number = self.books.mails.len();
        let count = *chance.pick(&[1, 1, 1, 2, 2, 3, 4, 5, 6]);
        let recipients = (0..count).map(|index| match (&self.next_hop, entrance) {
            (_, Entrance::OutsideSmtp) => {
                Recipient::new(format!("r{index}@nec.example"), mail_server_address())
            }
            (Some(_), _) => Recipient::new(format!("r{index}@abc.example"), next_hop_address()),
            (None, _) => {
                let to = u8::try_from(chance.below(u64::from(EXCHANGERS))).unwrap() + 1;
                Recipient::new(format!("r{index}@[192.0.2.{to}]"), exchanger(to))
            }
        });
        let recipients = recipients.collect();
        let from =
            if entrance == Entrance::OutsideSmtp { "bob@abc.example" } else { "alice@nec.example" };
        let mut content = format!(
            "X-Schedule: m{number}\r\nFrom: <{from}>\r\nTo: undisclosed-recipients:;\r\nSubject: x\r\n\
             Date: Fri, 13 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{run:016x}.{number}@nec.example>\r\n\r\n"
        );
        let most = *chance
            .pick(&[100, 100, 100, 100, 2000, 2000, 2000, 2000, 2000, 20_000, 20_000, 90_000]);
        let length = content.len() + chance.index(most);
        while content.len() < length {
            let lines = [
                "x\r\n",
                ".\r\n",
                "..\r\n",
                "\r\n",
                ".x some words in a line of its own\r\n",
                FULL_LINE,
            ];
            let line = *chance.pick(&lines);
            content.push_str(line);
        }
        let sender_is_null = chance.per_mille(60);
        let notify = match chance.below(1000) {
            0..60 => Some(NEVER),
            60..160 => Some(SUCCESS),
            _ => None,
        };
        Mail {
            entrance,
            sender_is_null,
            notify,
            recipients,
            content: content.into_bytes(),
            kind: Kind::Plain,
            attempts: Vec::new(),
        }
    }

    fn describe(&mut self) {
        self.header.push(format!(
            "next hop {:?}, mail server {}, {:?}, {:?}, asks for recipients {}, pause {:?}, connections {}",
            self.next_hop,
            self.mail_server,
            self.client_address,
            self.done_record,
            self.asks_for_recipients,
            self.reply_pause,
            self.connections_max
        ));
        self.header.extend(self.servers.iter().map(|server| format!("{server:?}")));
        self.header.extend(self.clients.iter().map(|client| format!("{client:?}")));
    }
}

impl Mail {
    /// Made into one that is sealed on its way out, or that is sealed already and opened on its way in.
    fn keep_secret(&mut self, entrance: Entrance, run: u64, number: usize, sealed: &[Vec<u8>]) {
        if entrance == Entrance::OutsideSmtp {
            self.kind = Kind::Opened;
            // The beginning is another in each message.
            let head = self.content.iter().position(|octet| *octet == b'\r').unwrap();
            let head = String::from_utf8_lossy(&self.content[..head]).into_owned();
            let head = format!("{head}\r\nX-Run: {run:016x}\r\n");
            self.content = [head.as_bytes(), &sealed[number]].concat();
        } else {
            self.kind = Kind::Sealed;
            self.content.extend_from_slice(secret(number).as_bytes());
        }
    }
}

/// The policy that seals everything.
pub(super) fn with_keys(policy: &Policy) -> Policy {
    let defaults = Decision { encrypt: Encrypt::Require, sign: Sign::IfKey, ..policy.defaults };
    Policy { defaults, ..policy.clone() }
}

fn next_hop_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 50], 2525))
}

fn mail_server_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 100], 2526))
}

/// Of all clients of a schedule.
pub(super) const MAILS_MAX: usize = 9;
/// Mail servers on the Internet.
const EXCHANGERS: u8 = 4;
const FULL_LINE: &str =
    "a line that is as long as lines of mail usually are, seventy-six octets......\r\n";
