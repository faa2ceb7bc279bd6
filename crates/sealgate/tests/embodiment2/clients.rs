//! Mail programs as people have them, configured as for any mail server: they know its name, a user and a password.

use std::fs;
use std::process::Command;

use sealgate_testkit::dovecot::PASSWORD;
use sealgate_testkit::mail;
use sealgate_testkit::netns::Namespace;
use sealgate_testkit::netns::connection::Connection;
use sealgate_testkit::process::{self, Ran};
use tempfile::TempDir;

/// What an organisation tells each of its people about its mail.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) server: String,
    pub(crate) user: String,
}

/// Programs and devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MailProgram {
    /// A portable telephone: no MIME, seven bits, the fewest commands.
    Telephone,
    /// A fax gateway: an image is all there is.
    Fax,
    Curl,
    Swaks,
    Neomutt,
}

impl MailProgram {
    pub(crate) const ALL: [Self; 5] =
        [Self::Telephone, Self::Fax, Self::Curl, Self::Swaks, Self::Neomutt];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Telephone => "telephone",
            Self::Fax => "fax",
            Self::Curl => "curl",
            Self::Swaks => "swaks",
            Self::Neomutt => "neomutt",
        }
    }

    /// Its configuration files, each with its name. The same for every organisation, whatever stands behind its
    /// mail server: nobody tells this function anything else.
    pub(crate) fn configuration(self, account: &Account) -> Vec<(&'static str, String)> {
        let Account { server, user } = account;
        let fetch = |url: &str| format!("url = \"{url}\"\nuser = \"{user}:{PASSWORD}\"\n");
        let pop3 = ("pop3", fetch(&format!("pop3://{server}/1")));
        let imap = ("imap", fetch(&format!("imap://{server}/INBOX;MAILINDEX=1")));
        match self {
            Self::Telephone | Self::Fax => {
                vec![(
                    "settings",
                    format!(
                        "smtp={server}:25\npop3={server}:110\nuser={user}\npassword={PASSWORD}\n"
                    ),
                )]
            }
            Self::Curl => vec![
                ("smtp", format!("url = \"smtp://{server}\"\nmail-from = \"{user}\"\n")),
                pop3,
                imap,
            ],
            Self::Swaks => vec![("swaksrc", format!("server {server}\nfrom {user}\n")), pop3],
            Self::Neomutt => vec![(
                "neomuttrc",
                format!(
                    "set from = \"{user}\"\nset smtp_url = \"smtp://{server}\"\n\
                     set folder = \"imap://{server}\"\nset spoolfile = \"+INBOX\"\n\
                     set imap_user = \"{user}\"\nset imap_pass = \"{PASSWORD}\"\n\
                     set ssl_force_tls = no\n"
                ),
            )],
        }
    }
}

/// A program on a host, with the files that its user has.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) program: MailProgram,
    pub(crate) account: Account,
    pub(crate) host: Namespace,
    pub(crate) home: TempDir,
}

impl Client {
    pub(crate) fn new(program: MailProgram, account: Account, hosts: &str) -> Self {
        let home = process::open_temp_dir("client");
        for (name, text) in program.configuration(&account) {
            fs::write(home.path().join(name), text).unwrap();
        }
        let host = Namespace::with_home(program.name(), hosts, home.path());
        Self { program, account, host, home }
    }

    /// Sends content as the program does.
    pub(crate) fn send(&self, to: &str, content: &[u8]) {
        let from = &self.account.user;
        let subject = self.program.name();
        match self.program {
            MailProgram::Telephone => {
                let header = format!("From: {from}\r\nTo: {to}\r\nSubject: {subject}\r\n\r\n");
                let message = [header.as_bytes(), content].concat();
                send_by_hand(self.host.connect(&self.setting("smtp")), from, to, &message);
            }
            MailProgram::Fax => {
                let message = mail::message(from, to, subject, &entity(self.program, content));
                send_by_hand(self.host.connect(&self.setting("smtp")), from, to, &message);
            }
            MailProgram::Curl => {
                self.save(&mail::message(from, to, subject, &entity(self.program, content)));
                let path = self.path("message");
                self.run(
                    "curl",
                    &["-sS", "-K", &self.path("smtp"), "--mail-rcpt", to, "-T", &path],
                );
            }
            MailProgram::Swaks => {
                let message = mail::message(from, to, subject, &entity(self.program, content));
                // swaks ends the last line itself.
                self.save(message.strip_suffix(b"\r\n").unwrap());
                let data = format!("@{}", self.path("message"));
                let configuration = self.path("swaksrc");
                let arguments = ["--config", &configuration, "--silent", "2", "--to", to];
                self.run("swaks", &[&arguments[..], &["--data", &data]].concat());
            }
            MailProgram::Neomutt => {
                let mut command = self.command("neomutt");
                command.args(["-F", &self.path("neomuttrc"), "-e", "set copy = no"]);
                let text = String::from_utf8(content.to_vec()).unwrap().replace("\r\n", "\n");
                let ran = process::run(command.args(["-s", subject, to]), text.as_bytes());
                self.expect_ok("neomutt", ran);
            }
        }
    }

    /// Fetches the one mail there is, as the program does.
    pub(crate) fn fetch(&self) -> Vec<u8> {
        match self.program {
            MailProgram::Telephone | MailProgram::Fax => {
                let connection = self.host.connect(&self.setting("pop3"));
                fetch_by_hand(connection, &self.setting("user"), &self.setting("password"))
            }
            MailProgram::Curl => {
                let over_pop3 = self.run("curl", &["-sS", "-K", &self.path("pop3")]);
                let over_imap = self.run("curl", &["-sS", "-K", &self.path("imap")]);
                assert_eq!(over_pop3, over_imap, "POP3 and IMAP clients see the same");
                over_pop3
            }
            MailProgram::Swaks => self.run("curl", &["-sS", "-K", &self.path("pop3")]),
            MailProgram::Neomutt => self.read_on_a_terminal(),
        }
    }

    /// What a user of neomutt does: opens the mailbox, takes the first mail as it is, and as it is shown to him.
    fn read_on_a_terminal(&self) -> Vec<u8> {
        let [file, source, shown] = ["keystrokes", "source", "shown"].map(|name| self.path(name));
        let keystrokes = format!(
            "source {}\nset wait_key = no\n\
             push \"<first-entry><pipe-message>cat > {source}<enter>\
             <enter-command>set pipe_decode<enter><pipe-message>cat > {shown}<enter><exit>\"\n",
            self.path("neomuttrc")
        );
        fs::write(&file, keystrokes).unwrap();
        let printed = self.run("script", &["-qec", &format!("neomutt -F {file}"), "/dev/null"]);
        let read = |path: &str| {
            let said = String::from_utf8_lossy(&printed);
            fs::read_to_string(path).unwrap_or_else(|why| panic!("{path}: {why}: {said}"))
        };
        let [source, shown] = [source, shown].map(|path| read(&path));
        // neomutt gives lines as the system ends them.
        let source = mail::with_crlf(source.as_bytes());
        let content = mail::decoded_content(mail::signed_part(&source));
        let text = String::from_utf8(content).unwrap().replace("\r\n", "\n");
        assert!(shown.contains(&text), "neomutt shows {shown:?} of {text:?}");
        source
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let mut command = self.command(program);
        self.expect_ok(program, process::run(command.args(arguments), b""))
    }

    fn expect_ok(&self, program: &str, ran: Ran) -> Vec<u8> {
        let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
        ran.expect_ok(&format!("{program} of {}: {printed}", self.account.user))
    }

    fn command(&self, program: &str) -> Command {
        // `env` runs behind the host's door, where the home is.
        let mut command = self.host.command("timeout");
        command.args(["100", program]).env("HOME", self.home.path()).env("TERM", "xterm");
        command
    }

    fn save(&self, message: &[u8]) {
        fs::write(self.path("message"), message).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).to_str().unwrap().to_owned()
    }

    /// One line of a telephone's or fax gateway's settings.
    fn setting(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path("settings")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no setting {name}")).to_owned()
    }
}

/// SMTP (RFC 5321) with the fewest commands.
pub(crate) fn send_by_hand(mut server: Connection, from: &str, to: &str, message: &[u8]) {
    server.expect("220 ");
    server.command("HELO client.example", "250 ");
    server.command(&format!("MAIL FROM:<{from}>"), "250 ");
    server.command(&format!("RCPT TO:<{to}>"), "250 ");
    server.command("DATA", "354 ");
    server.send(&mail::stuffed(message));
    server.expect("250 ");
    server.command("QUIT", "221 ");
}

/// POP3 (RFC 1939) with the fewest commands: the first mail.
pub(crate) fn fetch_by_hand(mut server: Connection, user: &str, password: &str) -> Vec<u8> {
    server.expect("+OK");
    server.command(&format!("USER {user}"), "+OK");
    server.command(&format!("PASS {password}"), "+OK");
    server.command("RETR 1", "+OK");
    let mut content = Vec::new();
    loop {
        let line = server.line();
        if line == b".\r\n" {
            break;
        }
        content.extend_from_slice(&line);
    }
    server.command("QUIT", "+OK");
    mail::unstuffed(&content)
}

/// An entity with this content, encoded as such programs do.
pub(crate) fn entity(program: MailProgram, content: &[u8]) -> Vec<u8> {
    let (content_type, encoding, body) = match program {
        MailProgram::Telephone | MailProgram::Neomutt => {
            ("text/plain; charset=us-ascii", "7bit", content.to_vec())
        }
        MailProgram::Fax => ("image/tiff", "base64", mail::encode_base64(content)),
        MailProgram::Curl => ("text/plain; charset=utf-8", "8bit", content.to_vec()),
        MailProgram::Swaks => {
            ("text/plain; charset=utf-8", "quoted-printable", quoted_printable(content))
        }
    };
    let header =
        format!("Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n");
    [header.as_bytes(), &body].concat()
}

fn quoted_printable(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in content {
        match byte {
            b'=' | 0x80.. => out.extend_from_slice(format!("={byte:02X}").as_bytes()),
            other => out.push(*other),
        }
    }
    out
}
