//! A mail server, or a client on the Internet, that hands its queue to the relay: patiently, in a hurry, in pieces, and gone
//! in the middle of it, as chance has it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::line::{Line, Over};
use super::pipe;
use super::world::{books, complain, delay, draw, is_calm, note, with};
use crate::relay::listener::{self, Entrance};
use crate::relay::stream::Stream;

/// One client.
#[derive(Clone, Debug)]
pub(super) struct ClientPlan {
    pub(super) entrance: Entrance,
    pub(super) peer: SocketAddr,
    /// Indices into the books.
    pub(super) messages: Vec<usize>,
    pub(super) sender: &'static str,
    /// So many steps out of a thousand go wrong.
    pub(super) per_mille: u64,
    /// What may be on its way to the relay and back.
    pub(super) room: (usize, usize),
    pub(super) slow: Option<(usize, Duration)>,
    /// The least time between two attempts.
    pub(super) retry_after: Duration,
    /// At its first attempt it waits no longer than this for the replies to its dot.
    pub(super) leaves_after: Option<Duration>,
    /// A server that its mail may go to offers no DSN.
    pub(super) old: bool,
}

/// Hands over everything; what is still open in calm weather is the relay's fault.
pub(super) async fn run(plan: ClientPlan) {
    for round in 0..ROUNDS {
        if round == ROUNDS - CALM_ROUNDS {
            sleep_until(with(|world| world.calm_at) + TRANSACTION_MAX).await;
        }
        let mut session = None;
        let mut retry_after = plan.retry_after;
        for message in &plan.messages {
            if !books(|books| books.mails[*message].is_open()) {
                continue;
            }
            let mut current = match session.take() {
                Some(current) if draw(|chance| chance.per_mille(800)) => current,
                _ => match Session::open(&plan).await {
                    Ok(current) => current,
                    Err(Over) => continue,
                },
            };
            if !current.dsn {
                // Whose copy it is nobody is told: no two attempts may overlap.
                retry_after = retry_after.max(TRANSACTION_MAX);
            }
            if current.attempt(*message).await.is_ok() && current.pastime().await.is_ok() {
                session = Some(current);
            }
        }
        if let Some(mut session) = session.take()
            && draw(|chance| chance.per_mille(800))
        {
            let _ = session.command("QUIT\r\n", 2).await;
        }
        if !plan.messages.iter().any(|message| books(|books| books.mails[*message].is_open())) {
            return;
        }
        sleep(retry_after + Duration::from_millis(draw(|chance| chance.below(900_000)))).await;
    }
    for message in &plan.messages {
        if books(|books| books.mails[*message].is_open()) {
            complain(format!("m{message} is not taken although nothing goes wrong any more"));
        }
    }
}

struct Session<'p> {
    plan: &'p ClientPlan,
    line: Line,
    number: usize,
    trouble: u64,
    /// When the client has had enough.
    vanishes: Option<Instant>,
    /// It broke off itself.
    vanished: bool,
    patience: Duration,
    closing: bool,
    /// Whether ENVID and NOTIFY are taken.
    dsn: bool,
}

/// What is handed over.
struct Shipment {
    id: (usize, usize),
    mail: String,
    /// Index into the message's recipients, and the command.
    recipients: Vec<(usize, String)>,
    content: Vec<u8>,
}

impl<'p> Session<'p> {
    async fn open(plan: &'p ClientPlan) -> Result<Self, Over> {
        let (ours, theirs) = pipe::pair(plan.room);
        let local = SocketAddr::from(([127, 0, 0, 1], 2024));
        let (relay, number) = with(|world| {
            world.connections += 1;
            (std::sync::Arc::clone(&world.relay), world.connections)
        });
        let would_offer = plan.entrance != Entrance::OutsideSmtp
            || !plan.old && relay.downstream.inside_offers.dsn();
        let accepted =
            listener::session(&relay, plan.entrance, (Stream::Memory(theirs), local, plan.peer));
        let running = tokio::spawn(accepted.run());
        with(|world| world.sessions.push(running));
        let trouble = if is_calm() { 0 } else { plan.per_mille };
        let mut session = Self {
            plan,
            line: Line::new(ours, plan.slow),
            number,
            trouble,
            vanishes: None,
            vanished: false,
            patience: COMMAND_MAX,
            closing: false,
            dsn: false,
        };
        session.note("connects");
        session.expect(2).await?;
        let hello = match plan.entrance {
            Entrance::InsideLmtp => "LHLO",
            _ if draw(|chance| chance.per_mille(50)) => "HELO",
            _ => "EHLO",
        };
        session.command(&format!("{hello} client.example\r\n"), 2).await?;
        // Who says HELO is offered nothing, and the relay takes from him what it would offer.
        session.dsn |= hello == "HELO" && would_offer;
        Ok(session)
    }

    fn note(&self, what: &str) {
        note(|| format!("#{} {} {what}", self.number, self.plan.entrance.name()));
    }

    /// One whole reply, its last line's text.
    async fn reply(&mut self) -> Result<(u16, String), Over> {
        let read = async {
            loop {
                let line = self.line.line().await?;
                self.dsn |= line.get(4..) == Some("DSN");
                if line.as_bytes().get(3) != Some(&b'-') {
                    return Ok(line);
                }
            }
        };
        let until = Instant::now() + self.patience;
        let line = match self.vanishes.filter(|at| *at < until) {
            Some(at) => match timeout_at(at, read).await {
                Ok(line) => line?,
                Err(_) => return Err(self.vanish()),
            },
            None => match timeout_at(until, read).await {
                Ok(line) => line?,
                Err(_) => {
                    if self.plan.slow.is_none() {
                        complain(format!("#{} no reply within {:?}", self.number, self.patience));
                    }
                    return Err(self.vanish());
                }
            },
        };
        self.note(&format!("<- {line}"));
        let code = line.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or_default();
        self.closing |= code == 421;
        Ok((code, line.get(4..).unwrap_or_default().to_owned()))
    }

    fn vanish(&mut self) -> Over {
        self.note("is gone");
        self.vanished = true;
        self.line.hang_up(draw(|chance| chance.per_mille(300)));
        Over
    }

    /// A reply of this class.
    async fn expect(&mut self, class: u16) -> Result<(), Over> {
        let (code, text) = self.reply().await?;
        if code == 421 {
            return Err(Over);
        }
        if code / 100 != class {
            complain(format!("#{} {code} {text} where {class}xx is right", self.number));
        }
        Ok(())
    }

    async fn command(&mut self, command: &str, class: u16) -> Result<(), Over> {
        self.write(command.as_bytes()).await?;
        self.expect(class).await
    }

    /// Writes in pieces.
    async fn write(&mut self, octets: &[u8]) -> Result<(), Over> {
        let trouble = self.trouble;
        let mut rest = octets;
        while !rest.is_empty() {
            let most = if draw(|chance| chance.per_mille(trouble * 3)) {
                draw(|chance| chance.index(rest.len())) + 1
            } else {
                rest.len()
            };
            let (piece, after) = rest.split_at(most);
            // A relay that does not read would never let this end.
            let written = timeout(WRITE_MAX, self.line.write(piece)).await;
            if self.line.is_cut() {
                self.note("is gone in the middle of what it says");
                self.vanished = true;
            }
            match written {
                Ok(done) => done?,
                Err(_) => {
                    complain(format!("#{} the relay reads nothing", self.number));
                    return Err(self.vanish());
                }
            }
            rest = after;
            if !rest.is_empty() {
                sleep(delay(trouble)).await;
            }
        }
        Ok(())
    }

    /// What clients do between two messages.
    async fn pastime(&mut self) -> Result<(), Over> {
        let trouble = self.trouble;
        self.vanishes = None;
        self.patience = COMMAND_MAX;
        match draw(|chance| chance.below(10)) {
            0 => self.command("NOOP\r\n", 2).await?,
            1 => self.command("RSET\r\n", 2).await?,
            2 => self.command("XYZZY\r\n", 5).await?,
            3 => self.command("VRFY x\r\n", 2).await?,
            _ => {}
        }
        sleep(delay(trouble)).await;
        Ok(())
    }

    /// Tries to hand over what is open of a message.
    async fn attempt(&mut self, message: usize) -> Result<(), Over> {
        let shipment = self.shipment(message);
        let id = shipment.id;
        let trouble = self.trouble;
        self.line.cut_after = draw(|chance| {
            let bytes = shipment.content.len() + 100 * shipment.recipients.len();
            chance.per_mille(trouble).then(|| chance.index(bytes))
        });
        let done = self.hand_over(shipment).await;
        self.line.cut_after = None;
        if done.is_err() {
            books(|books| books.gone(id));
        }
        done
    }

    fn shipment(&self, message: usize) -> Shipment {
        let (attempt, open) = books(|books| books.begin(message));
        books(|books| {
            let mail = &books.mails[message];
            let sender = if mail.sender_is_null { "" } else { self.plan.sender };
            let size = mail.content.len();
            let notify = mail.notify.filter(|_| self.dsn);
            let notify = notify.map(|words| format!(" NOTIFY={words}")).unwrap_or_default();
            let envid = format!(" ENVID=m{message}.{attempt}");
            let envid = if self.dsn { envid } else { String::new() };
            let rcpt = |index: usize| {
                let address = &mail.recipients[index].address;
                (index, format!("RCPT TO:<{address}>{notify}\r\n"))
            };
            Shipment {
                id: (message, attempt),
                mail: format!("MAIL FROM:<{sender}>{envid} SIZE={size}\r\n"),
                recipients: open.into_iter().map(rcpt).collect(),
                content: mail.content.clone(),
            }
        })
    }

    async fn hand_over(&mut self, shipment: Shipment) -> Result<(), Over> {
        self.note(&format!("attempt m{}.{}", shipment.id.0, shipment.id.1));
        let style = draw(|chance| chance.below(20));
        // 0: RSET instead of DATA; 1, 2: BDAT; up to 12: pipelined; else step by step.
        let pipelined = (3..=12).contains(&style);
        if pipelined {
            let mut all = shipment.mail.clone();
            shipment.recipients.iter().for_each(|(_, rcpt)| all.push_str(rcpt));
            all.push_str("DATA\r\n");
            self.write(all.as_bytes()).await?;
        } else {
            self.write(shipment.mail.as_bytes()).await?;
        }
        let (code, text) = self.reply().await?;
        let everybody: Vec<usize> = shipment.recipients.iter().map(|(index, _)| *index).collect();
        if code / 100 != 2 {
            self.tell(shipment.id, (&everybody, false), (code, &text));
        }
        if self.closing || (code / 100 != 2 && !pipelined) {
            return self.still_open();
        }
        let mut admitted = Vec::new();
        for (index, rcpt) in &shipment.recipients {
            if !pipelined {
                self.write(rcpt.as_bytes()).await?;
            }
            let (code_of_one, text) = self.reply().await?;
            match code_of_one / 100 {
                2 => admitted.push(*index),
                _ if code / 100 == 2 => {
                    self.tell(shipment.id, (&[*index], false), (code_of_one, &text));
                }
                _ => {}
            }
            if self.closing {
                return Err(Over);
            }
        }
        if style == 0 && self.trouble > 0 {
            return self.command("RSET\r\n", 2).await;
        }
        if admitted.is_empty() {
            if pipelined {
                self.expect(5).await?;
            }
            return self.command("RSET\r\n", 2).await;
        }
        if !pipelined && style > 2 {
            self.write(b"DATA\r\n").await?;
        }
        let jointly = self.plan.entrance != Entrance::InsideLmtp;
        if style > 2 {
            let (code, text) = self.reply().await?;
            if code != 354 {
                self.tell(shipment.id, (&admitted, jointly), (code, &text));
                self.still_open()?;
                return self.command("RSET\r\n", 2).await;
            }
            self.data(&shipment).await?;
        } else {
            self.chunks(&shipment).await?;
        }
        self.hear(&shipment, &admitted).await
    }

    fn still_open(&self) -> Result<(), Over> {
        if self.closing { Err(Over) } else { Ok(()) }
    }

    async fn data(&mut self, shipment: &Shipment) -> Result<(), Over> {
        let mut raw = Vec::with_capacity(shipment.content.len() + 16);
        for line in shipment.content.split_inclusive(|octet| *octet == b'\n') {
            if line.starts_with(b".") {
                raw.push(b'.');
            }
            raw.extend_from_slice(line);
        }
        raw.extend_from_slice(b".\r\n");
        self.write(&raw).await?;
        books(|books| books.dot(shipment.id));
        Ok(())
    }

    async fn chunks(&mut self, shipment: &Shipment) -> Result<(), Over> {
        let mut rest = shipment.content.as_slice();
        let middle = draw(|chance| chance.index(rest.len()));
        if middle > 0 {
            let (chunk, after) = rest.split_at(middle);
            self.write(&[format!("BDAT {middle}\r\n").as_bytes(), chunk].concat()).await?;
            self.expect(2).await?;
            rest = after;
        }
        self.write(&[format!("BDAT {} LAST\r\n", rest.len()).as_bytes(), rest].concat()).await?;
        books(|books| books.dot(shipment.id));
        Ok(())
    }

    /// The replies after the dot.
    async fn hear(&mut self, shipment: &Shipment, admitted: &[usize]) -> Result<(), Over> {
        self.note(&format!("has sent m{}.{}", shipment.id.0, shipment.id.1));
        let trouble = self.trouble;
        // What was planned to be cut is through.
        self.line.cut_after = None;
        let dot = Instant::now();
        self.vanishes = draw(|chance| {
            let ms = [chance.below(3), chance.below(5000), chance.below(600_000)];
            chance.per_mille(trouble * 2).then(|| dot + Duration::from_millis(*chance.pick(&ms)))
        });
        if shipment.id.1 == 0
            && let Some(patience) = self.plan.leaves_after
        {
            self.vanishes = Some(dot + patience);
        }
        let heard = async {
            let jointly = self.plan.entrance != Entrance::InsideLmtp;
            let groups = admitted.chunks(if jointly { usize::MAX } else { 1 });
            for group in groups {
                self.patience = (dot + DOT_MAX).saturating_duration_since(Instant::now());
                let (code, text) = self.reply().await?;
                self.tell(shipment.id, (group, jointly), (code, &text));
                if self.closing {
                    return Err(Over);
                }
            }
            Ok(())
        };
        let heard: Result<(), Over> = heard.await;
        self.vanishes = None;
        self.patience = COMMAND_MAX;
        if heard.is_err() && !self.vanished && !self.closing && self.plan.slow.is_none() {
            complain(format!("#{} the relay closes and answers nothing", self.number));
        }
        heard
    }

    /// One reply of these, each by himself or jointly.
    fn tell(
        &self,
        id: (usize, usize),
        (recipients, jointly): (&[usize], bool),
        reply: (u16, &str),
    ) {
        for index in recipients {
            books(|books| books.told(id, (*index, jointly), reply));
        }
    }
}

/// Runs of the queue.
const ROUNDS: usize = 5;
/// The last of them, in calm weather. In the first one a server that was left alone is only probed: of several copies for it
/// one is taken.
const CALM_ROUNDS: usize = 2;
/// RFC 5321 §4.5.3.2.
const COMMAND_MAX: Duration = Duration::from_secs(300);
/// RFC 5321 §4.5.3.2.6.
const DOT_MAX: Duration = Duration::from_secs(600);
/// Far longer than a relay that is going to read leaves its client waiting.
const WRITE_MAX: Duration = Duration::from_secs(1200);
/// What was begun in bad weather is over then.
const TRANSACTION_MAX: Duration = Duration::from_secs(800);
