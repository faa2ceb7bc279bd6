//! One command line becomes one [`Command`]: RFC 5321 §4.1, RFC 2033 §4, RFC 3030 §2, RFC 3207 §4, RFC 3461 §4.
//!
//! In: a line without its CRLF. Out: a command whose paths and parameters are parsed for good, or the reply that
//! says what is wrong with it. What is offered and what is in sequence is the server's affair.

use crate::address::{Address, Domain};
use crate::envelope::{MailParameters, Ret};
use crate::refusal::Reply;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// BDAT: octets that follow, and whether they are the last.
    Bdat {
        /// Octets.
        size_bytes: u64,
        /// LAST was given.
        last: bool,
    },
    /// DATA.
    Data,
    /// EHLO, HELO or LHLO.
    Hello(Greeting, String),
    /// EXPN.
    Expn,
    /// HELP.
    Help,
    /// The verb of another protocol: a browser was tricked into talking to us.
    Http,
    /// MAIL FROM.
    Mail {
        /// `None` is the null reverse-path.
        reverse_path: Option<Address>,
        /// Its parameters.
        parameters: MailParameters,
    },
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// RCPT TO.
    Rcpt {
        /// Where to.
        forward_path: ForwardPath,
        /// NOTIFY=.
        notify: Option<String>,
        /// ORCPT=.
        orcpt: Option<String>,
    },
    /// RSET.
    Rset,
    /// STARTTLS.
    StartTls,
    /// VRFY.
    Vrfy,
}

/// How a client says hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// RFC 5321.
    Ehlo,
    /// RFC 5321 §4.1.1.1, without extensions.
    Helo,
    /// RFC 2033.
    Lhlo,
}

/// RCPT's argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath {
    /// A mailbox.
    Mailbox(Address),
    /// `<postmaster>` without a domain (RFC 5321 §4.1.1.3).
    Postmaster,
}

impl Command {
    /// Parses a line.
    ///
    /// # Errors
    /// The reply to a command that is unknown or malformed.
    pub fn parse(line: &[u8]) -> Result<Self, Reply> {
        let text = std::str::from_utf8(line)
            .ok()
            .filter(|text| !text.chars().any(char::is_control))
            .ok_or_else(|| Reply::new(500, (5, 5, 2), "syntax error: not printable text"))?;
        let (verb, argument) = text.split_once(' ').unwrap_or((text, ""));
        let argument = argument.trim_matches(' ');
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => hello(Greeting::Ehlo, argument),
            "HELO" => hello(Greeting::Helo, argument),
            "LHLO" => hello(Greeting::Lhlo, argument),
            "MAIL" => mail(argument),
            "RCPT" => rcpt(argument),
            "DATA" => bare(Self::Data, argument),
            "BDAT" => bdat(argument),
            "RSET" => bare(Self::Rset, argument),
            "QUIT" => bare(Self::Quit, argument),
            "STARTTLS" => bare(Self::StartTls, argument),
            "NOOP" => Ok(Self::Noop),
            "HELP" => Ok(Self::Help),
            "VRFY" if !argument.is_empty() => Ok(Self::Vrfy),
            "EXPN" => Ok(Self::Expn),
            "VRFY" => Err(syntax("VRFY needs an argument")),
            "GET" | "POST" | "PUT" | "HEAD" | "OPTIONS" | "CONNECT" | "HOST:" => Ok(Self::Http),
            _ => Err(Reply::new(500, (5, 5, 1), "command not known")),
        }
    }
}

fn syntax(text: &str) -> Reply {
    Reply::new(501, (5, 5, 4), text)
}

fn bare(command: Command, argument: &str) -> Result<Command, Reply> {
    if argument.is_empty() { Ok(command) } else { Err(syntax("no argument is allowed here")) }
}

fn hello(greeting: Greeting, argument: &str) -> Result<Command, Reply> {
    let fits = !argument.is_empty()
        && argument.len() <= HELLO_NAME_BYTES_MAX
        && argument.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        Ok(Command::Hello(greeting, argument.to_owned()))
    } else {
        Err(syntax("a host name is needed"))
    }
}

fn bdat(argument: &str) -> Result<Command, Reply> {
    let mut words = argument.split(' ').filter(|word| !word.is_empty());
    let digits = words.next().unwrap_or_default();
    let last = words.next();
    let size = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok());
    match (size.flatten(), last, words.next()) {
        (Some(size_bytes), None, None) => Ok(Command::Bdat { size_bytes, last: false }),
        (Some(size_bytes), Some(word), None) if word.eq_ignore_ascii_case("LAST") => {
            Ok(Command::Bdat { size_bytes, last: true })
        }
        _ => Err(syntax("write BDAT octets, or BDAT octets LAST")),
    }
}

fn mail(argument: &str) -> Result<Command, Reply> {
    let (path, words) = path_and_parameters(argument, "FROM:")?;
    let reverse_path = match path {
        "" => None,
        path => Some(
            mailbox(path).ok_or_else(|| Reply::new(501, (5, 1, 7), "malformed sender address"))?,
        ),
    };
    let mut parameters = MailParameters::default();
    let mut body_given = false;
    for word in words {
        let (keyword, value) = parameter(word);
        let new = match (keyword.as_str(), value) {
            ("SIZE", Some(value)) => {
                parameters.size_bytes.replace(size(value).ok_or_else(|| bad(word))?).is_none()
            }
            ("BODY", Some(value)) => {
                parameters.eight_bit = match value.to_ascii_uppercase().as_str() {
                    "8BITMIME" => true,
                    "7BIT" => false,
                    _ => return Err(not_known(word)),
                };
                !std::mem::replace(&mut body_given, true)
            }
            ("SMTPUTF8", None) => !std::mem::replace(&mut parameters.smtputf8, true),
            ("REQUIRETLS", None) => !std::mem::replace(&mut parameters.requiretls, true),
            ("RET", Some(value)) => {
                let ret = match value.to_ascii_uppercase().as_str() {
                    "FULL" => Ret::Full,
                    "HDRS" => Ret::Headers,
                    _ => return Err(bad(word)),
                };
                parameters.ret.replace(ret).is_none()
            }
            ("ENVID", Some(value)) if is_xtext(value) && value.len() <= ENVID_BYTES_MAX => {
                parameters.envid.replace(value.to_owned()).is_none()
            }
            ("SIZE" | "BODY" | "SMTPUTF8" | "REQUIRETLS" | "RET" | "ENVID", _) => {
                return Err(bad(word));
            }
            _ => return Err(not_known(word)),
        };
        if !new {
            return Err(syntax("a parameter is given twice"));
        }
    }
    if !parameters.smtputf8 && !path.is_ascii() {
        return Err(needs_smtputf8());
    }
    Ok(Command::Mail { reverse_path, parameters })
}

fn rcpt(argument: &str) -> Result<Command, Reply> {
    let (path, words) = path_and_parameters(argument, "TO:")?;
    let forward_path = if path.eq_ignore_ascii_case("postmaster") {
        ForwardPath::Postmaster
    } else {
        let bad = || Reply::new(501, (5, 1, 3), "malformed recipient address");
        ForwardPath::Mailbox(mailbox(path).ok_or_else(bad)?)
    };
    let (mut notify, mut orcpt) = (None, None);
    for word in words {
        let (keyword, value) = parameter(word);
        let slot = match (keyword.as_str(), value) {
            ("NOTIFY", Some(value)) if is_notify(value) => &mut notify,
            ("ORCPT", Some(value)) if is_orcpt(value) => &mut orcpt,
            ("NOTIFY" | "ORCPT", _) => return Err(bad(word)),
            _ => return Err(not_known(word)),
        };
        if slot.replace(value.unwrap_or_default().to_owned()).is_some() {
            return Err(syntax("a parameter is given twice"));
        }
    }
    Ok(Command::Rcpt { forward_path, notify, orcpt })
}

/// Splits `FROM:<path> word word` into what is inside the brackets and the words.
fn path_and_parameters<'a>(
    argument: &'a str,
    keyword: &str,
) -> Result<(&'a str, impl Iterator<Item = &'a str>), Reply> {
    let malformed = || syntax(&format!("write {keyword}<address>"));
    let (head, rest) = argument.split_at_checked(keyword.len()).ok_or_else(malformed)?;
    // A space after the colon is against RFC 5321 §3.3, and common.
    let rest = rest.trim_start_matches(' ').strip_prefix('<').ok_or_else(malformed)?;
    if !head.eq_ignore_ascii_case(keyword) {
        return Err(malformed());
    }
    let end = path_end(rest).ok_or_else(malformed)?;
    let (path, rest) = rest.split_at_checked(end).ok_or_else(malformed)?;
    let parameters = rest.strip_prefix('>').ok_or_else(malformed)?;
    if !parameters.is_empty() && !parameters.starts_with(' ') {
        return Err(malformed());
    }
    Ok((path, parameters.split(' ').filter(|word| !word.is_empty())))
}

/// Where the `>` is that is not inside a quoted string.
fn path_end(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// A mailbox; a source route before it is dropped (RFC 5321 §4.1.1.3, appendix C).
fn mailbox(path: &str) -> Option<Address> {
    let mailbox = match path.strip_prefix('@') {
        None => path,
        Some(route) => {
            let (hosts, mailbox) = route.split_once(':')?;
            let mut hosts = hosts.split(',').enumerate();
            let valid = |(index, host): (usize, &str)| {
                let host = if index == 0 { Some(host) } else { host.strip_prefix('@') };
                host.is_some_and(|host| Domain::parse(host).is_ok())
            };
            hosts.all(valid).then_some(mailbox)?
        }
    };
    Address::parse_foreign(mailbox).ok()
}

fn parameter(word: &str) -> (String, Option<&str>) {
    let (keyword, value) =
        word.split_once('=').map_or((word, None), |(keyword, value)| (keyword, Some(value)));
    (keyword.to_ascii_uppercase(), value)
}

fn bad(word: &str) -> Reply {
    syntax(&format!("malformed parameter {word}"))
}

/// RFC 5321 §4.1.1.11: 555.
fn not_known(word: &str) -> Reply {
    Reply::new(555, (5, 5, 4), format!("parameter not known: {word}"))
}

/// RFC 6531 §3.5.
fn needs_smtputf8() -> Reply {
    Reply::new(553, (5, 6, 7), "an address with UTF-8 needs SMTPUTF8")
}

/// RFC 1870 §3: up to 20 digits; more than fits is more than any limit.
fn size(value: &str) -> Option<u64> {
    let digits = (1..=20).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| value.parse().unwrap_or(u64::MAX))
}

/// xtext of RFC 3461 §4.
fn is_xtext(value: &str) -> bool {
    is_xtext_of(value, |b| (b'!'..=b'~').contains(&b))
}

fn is_xtext_of(value: &str, is_plain: impl Fn(u8) -> bool) -> bool {
    let upper_hex = |b: Option<u8>| b.is_some_and(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    let mut octets = value.bytes();
    while let Some(b) = octets.next() {
        let fits = match b {
            b'+' => upper_hex(octets.next()) && upper_hex(octets.next()),
            b'=' => false,
            b => is_plain(b),
        };
        if !fits {
            return false;
        }
    }
    !value.is_empty()
}

/// RFC 3461 §4.2; with the type `utf-8` also octets above 127 (RFC 6533 §3).
fn is_orcpt(value: &str) -> bool {
    let Some((kind, address)) = value.split_once(';') else { return false };
    let utf8 = kind.eq_ignore_ascii_case("utf-8");
    value.len() <= ORCPT_BYTES_MAX
        && !kind.is_empty()
        && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && is_xtext_of(address, |b| (b'!'..=b'~').contains(&b) || (utf8 && b >= 0x80))
}

/// RFC 3461 §4.1: NEVER alone, or the others, each once.
fn is_notify(value: &str) -> bool {
    if value.eq_ignore_ascii_case("NEVER") {
        return true;
    }
    let mut seen = [false; 3];
    value.split(',').all(|word| {
        let kinds = ["SUCCESS", "FAILURE", "DELAY"];
        let place = kinds.iter().zip(&mut seen).find(|(kind, _)| word.eq_ignore_ascii_case(kind));
        place.is_some_and(|(_, seen)| !std::mem::replace(seen, true))
    })
}

/// RFC 5321 §4.5.3.1.2, and room for brackets.
const HELLO_NAME_BYTES_MAX: usize = 257;
/// RFC 3461 §4.4.
const ENVID_BYTES_MAX: usize = 100;
/// RFC 3461 §4.2.
pub(super) const ORCPT_BYTES_MAX: usize = 500;

#[cfg(test)]
mod tests;
