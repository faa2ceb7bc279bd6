//! Plain mail clients without any security function: POP3 (RFC 1939) and IMAP (RFC 3501), just enough to fetch.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::mail;

/// All mail of a mailbox over POP3, in the server's order, left on the server.
pub fn pop3(address: SocketAddr, user: &str, password: &str) -> Vec<Vec<u8>> {
    let mut line = Line::connect(address);
    line.expect("+OK");
    line.send(&format!("USER {user}"));
    line.expect("+OK");
    line.send(&format!("PASS {password}"));
    line.expect("+OK");
    line.send("STAT");
    let status = line.expect("+OK");
    let count: usize = status.split(' ').nth(1).unwrap().parse().unwrap();
    let mut messages = Vec::new();
    for number in 1..=count {
        line.send(&format!("RETR {number}"));
        line.expect("+OK");
        let mut content = Vec::new();
        loop {
            let bytes = line.read();
            if bytes == b".\r\n" {
                break;
            }
            content.extend_from_slice(&bytes);
        }
        messages.push(mail::unstuffed(&content));
    }
    line.send("QUIT");
    messages
}

/// All mail of the INBOX over IMAP, in the server's order, left unseen.
pub fn imap(address: SocketAddr, user: &str, password: &str) -> Vec<Vec<u8>> {
    let mut line = Line::connect(address);
    line.expect("* OK");
    line.send(&format!("a LOGIN {user} {password}"));
    line.skip_to("a OK");
    line.send("b EXAMINE INBOX");
    line.skip_to("b OK");
    line.send("c UID FETCH 1:* BODY.PEEK[]");
    let mut messages = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&line.read()).trim_end().to_owned();
        if text.starts_with("c OK") {
            break;
        }
        assert!(text.starts_with('*') || text == ")", "IMAP: {text}");
        if let Some((_, length)) = text.strip_suffix('}').and_then(|text| text.rsplit_once('{')) {
            let mut content = vec![0; length.parse().unwrap()];
            line.reader.read_exact(&mut content).unwrap();
            messages.push(content);
        }
    }
    line.send("d LOGOUT");
    messages
}

struct Line {
    reader: BufReader<TcpStream>,
}

impl Line {
    fn connect(address: SocketAddr) -> Self {
        let stream =
            TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    fn send(&mut self, text: &str) {
        self.reader.get_mut().write_all(format!("{text}\r\n").as_bytes()).unwrap();
    }

    fn read(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).unwrap();
        assert!(!line.is_empty(), "the mail server closed the connection");
        line
    }

    fn expect(&mut self, start: &str) -> String {
        let text = String::from_utf8_lossy(&self.read()).trim_end().to_owned();
        assert!(text.starts_with(start), "{text:?} instead of {start:?}");
        text
    }

    fn skip_to(&mut self, start: &str) {
        loop {
            let text = String::from_utf8_lossy(&self.read()).into_owned();
            if text.starts_with(start) {
                return;
            }
            assert!(text.starts_with('*'), "{text:?} instead of {start:?}");
        }
    }
}

/// How long a mail server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
