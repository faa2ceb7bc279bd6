//! The Internet between two relays: a TCP proxy that records every byte and may alter message content on its way.
//!
//! It understands just enough SMTP to find the content after DATA (RFC 5321 §4.1.1.4); after STARTTLS it only passes
//! bytes. It knows no BDAT.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::mail;

/// A proxy that is listening.
pub struct Wire {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Wire {
    /// Listens now; where it leads to is said with [`Wire::lead_to`].
    pub fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || carry(&state, client));
            }
        });
        Self { address, state }
    }

    /// Where connections go from now on.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.state.target.lock().unwrap() = Some(target);
    }

    /// Alters the content of the messages that pass from now on.
    pub fn alter(&self, edit: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) {
        *self.state.edit.lock().unwrap() = Some(Arc::new(edit));
    }

    /// Lets messages pass as they are again.
    pub fn leave(&self) {
        *self.state.edit.lock().unwrap() = None;
    }

    /// Message contents as the sending side sent them, dots removed.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        self.state.messages.lock().unwrap().clone()
    }

    /// Every byte that either side sent.
    pub fn recorded(&self) -> Vec<u8> {
        self.state.recorded.lock().unwrap().clone()
    }

    /// Forgets what was recorded.
    pub fn clear(&self) {
        self.state.messages.lock().unwrap().clear();
        self.state.recorded.lock().unwrap().clear();
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::new()
    }
}

type Edit = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

#[derive(Default)]
struct State {
    target: Mutex<Option<SocketAddr>>,
    edit: Mutex<Option<Edit>>,
    messages: Mutex<Vec<Vec<u8>>>,
    recorded: Mutex<Vec<u8>>,
}

impl State {
    fn record(&self, bytes: &[u8]) {
        self.recorded.lock().unwrap().extend_from_slice(bytes);
    }
}

/// Replies seen by the one direction, for the other to wait on.
#[derive(Default)]
struct Replies {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    count: usize,
    last_code: u16,
    ended: bool,
}

impl Replies {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
        self.changed.notify_all();
    }

    /// The code of the reply of this number, once it and no later one has come.
    fn await_code(&self, count: usize) -> Option<u16> {
        let seen = self
            .changed
            .wait_while(self.seen.lock().unwrap(), |seen| seen.count < count && !seen.ended)
            .unwrap();
        (!seen.ended).then_some(seen.last_code)
    }
}

fn carry(state: &Arc<State>, client: TcpStream) -> Option<()> {
    let target = (*state.target.lock().unwrap())?;
    let server = TcpStream::connect(target).ok()?;
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let replies = Arc::new(Replies::default());
    let back = {
        let (state, replies) = (Arc::clone(state), Arc::clone(&replies));
        let (server, client) = (server.try_clone().ok()?, client.try_clone().ok()?);
        thread::spawn(move || {
            carry_replies(&state, &replies, &server, &client);
            let _ = client.shutdown(Shutdown::Write);
            replies.note(|seen| seen.ended = true);
        })
    };
    carry_commands(state, &replies, &client, &server);
    let _ = server.shutdown(Shutdown::Write);
    back.join().ok()
}

fn carry_replies(
    state: &State,
    replies: &Replies,
    server: &TcpStream,
    mut client: &TcpStream,
) -> Option<()> {
    let mut reader = BufReader::new(server);
    loop {
        let line = read_line(&mut reader)?;
        state.record(&line);
        let code = std::str::from_utf8(line.get(..3).unwrap_or_default()).ok();
        if let Some(code) = code.and_then(|code| code.parse().ok())
            && line.get(3) != Some(&b'-')
        {
            replies.note(|seen| {
                seen.count += 1;
                seen.last_code = code;
            });
        }
        client.write_all(&line).ok()?;
    }
}

fn carry_commands(
    state: &State,
    replies: &Replies,
    client: &TcpStream,
    mut server: &TcpStream,
) -> Option<()> {
    let mut reader = BufReader::new(client);
    // The greeting is a reply without a command.
    let mut awaited = 1;
    loop {
        let line = read_line(&mut reader)?;
        state.record(&line);
        server.write_all(&line).ok()?;
        awaited += 1;
        match line.trim_ascii_end().to_ascii_uppercase().as_slice() {
            b"STARTTLS" => return pass(state, &mut reader, server),
            b"DATA" if replies.await_code(awaited)? == 354 => {
                let content = read_content(state, &mut reader)?;
                let edit = state.edit.lock().unwrap().clone();
                let sent = edit.map_or_else(|| content.clone(), |edit| edit(&content));
                state.messages.lock().unwrap().push(content);
                server.write_all(&mail::stuffed(&sent)).ok()?;
                awaited += 1;
            }
            _ => {}
        }
    }
}

fn pass(state: &State, reader: &mut BufReader<&TcpStream>, mut server: &TcpStream) -> Option<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = reader.read(&mut buffer).ok()?;
        if count == 0 {
            return None;
        }
        state.record(&buffer[..count]);
        server.write_all(&buffer[..count]).ok()?;
    }
}

fn read_content(state: &State, reader: &mut BufReader<&TcpStream>) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let line = read_line(reader)?;
        state.record(&line);
        if line == b".\r\n" {
            return Some(content);
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

fn read_line(reader: &mut BufReader<&TcpStream>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    (reader.read_until(b'\n', &mut line).ok()? > 0).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::send_smtp;
    use crate::sink::Sink;

    #[test]
    fn records_and_alters_what_passes() {
        let sink = Sink::smtp();
        let wire = Wire::new();
        wire.lead_to(sink.address);
        wire.alter(|content| content.iter().map(|b| if *b == b'x' { b'y' } else { *b }).collect());
        let sent = b"A: 1\r\n\r\n.x\r\n";
        assert_eq!(send_smtp(wire.address, "a@a.example", &["b@b.example"], sent).code, 250);
        assert_eq!(sink.await_received(1)[0].content, b"A: 1\r\n\r\n.y\r\n");
        assert_eq!(wire.messages(), [sent.to_vec()]);
        assert!(mail::contains(&wire.recorded(), "RCPT TO:<b@b.example>"));
        wire.leave();
        assert_eq!(send_smtp(wire.address, "a@a.example", &["b@b.example"], sent).code, 250);
        assert_eq!(sink.await_received(2)[1].content, sent);
    }
}
