//! Postfix's XCLIENT: tells a mail server behind us who the client in front of us is, so that its log, its trace field and its
//! access rules are about that client (<https://www.postfix.org/XCLIENT_README.html>).

use core::net::{IpAddr, SocketAddr};
use std::fmt::Write as _;

use bytes::Bytes;

use super::{Client, Expected, Failure, Phase};

/// A client in front of us.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Where it came from.
    pub address: SocketAddr,
    /// What its address is called in DNS.
    pub name: ClientName,
    /// The name in its hello.
    pub hello: String,
    /// Whether it said EHLO.
    pub extended: bool,
}

/// What a client's address is called in DNS. Left out, Postfix would take the name of our own address for the client's.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientName {
    /// A host name that leads back to the address.
    Confirmed(String),
    /// Nobody could tell now.
    TemporarilyUnavailable,
    /// There is none that leads back.
    #[default]
    Unavailable,
}

/// What a server lets be said in XCLIENT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XclientAttributes {
    /// ADDR; without it there is no use in XCLIENT.
    pub address: bool,
    /// HELO.
    pub hello: bool,
    /// NAME.
    pub name: bool,
    /// PORT.
    pub port: bool,
    /// PROTO.
    pub protocol: bool,
}

impl XclientAttributes {
    /// The words behind the keyword in the answer to EHLO.
    pub(super) fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut offered = Self::default();
        for word in words {
            match word.to_ascii_uppercase().as_str() {
                "ADDR" => offered.address = true,
                "HELO" => offered.hello = true,
                "NAME" => offered.name = true,
                "PORT" => offered.port = true,
                "PROTO" => offered.protocol = true,
                _ => {}
            }
        }
        offered
    }
}

impl Client {
    /// Says who the client is and greets anew, in its name; only when idle. [`super::Event::Idle`] follows, or a failure: where the server does
    /// not offer it, it must not be left to believe that the mail is our own.
    pub fn introduce(&mut self, identity: &Identity) {
        if !self.is_idle() {
            return;
        }
        if !self.capabilities.xclient.address {
            return self.fail(Failure::XclientNotOffered);
        }
        let command = command(identity, self.capabilities.xclient);
        // Postfix takes the name of the hello that follows for the client's, whatever HELO= said.
        if !identity.hello.is_empty()
            && identity.hello.bytes().all(|octet| octet.is_ascii_graphic())
        {
            self.options.hostname.clone_from(&identity.hello);
        }
        self.phase = Phase::Opening;
        self.output.push_back(Bytes::from(command));
        self.expected.push_back(Expected::Xclient);
    }
}

fn command(identity: &Identity, offered: XclientAttributes) -> String {
    let address = match identity.address.ip().to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("IPV6:{address}"),
    };
    let mut command = format!("XCLIENT ADDR={address}");
    let mut say = |offered: bool, attribute: &str, value: &str| {
        if offered {
            let _ = write!(command, " {attribute}={value}");
        }
    };
    let name = match &identity.name {
        ClientName::Confirmed(name) => xtext(name),
        ClientName::TemporarilyUnavailable => "[TEMPUNAVAIL]".to_owned(),
        ClientName::Unavailable => "[UNAVAILABLE]".to_owned(),
    };
    say(offered.name, "NAME", &name);
    say(offered.port, "PORT", &identity.address.port().to_string());
    say(offered.protocol, "PROTO", if identity.extended { "ESMTP" } else { "SMTP" });
    say(offered.hello, "HELO", &xtext(&identity.hello));
    command.push_str("\r\n");
    command
}

/// RFC 3461 §4: nothing that a client says breaks out of its attribute.
fn xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for &octet in text.as_bytes().iter().take(VALUE_OCTETS_MAX) {
        match octet {
            b'!'..=b'~' if octet != b'+' && octet != b'=' => out.push(char::from(octet)),
            _ => {
                let _ = write!(out, "+{octet:02X}");
            }
        }
    }
    out
}

/// XCLIENT takes values of 255 octets; a name in DNS has no more.
const VALUE_OCTETS_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(address: &str, hello: &str) -> Identity {
        let (address, hello) = (address.parse().unwrap(), hello.to_owned());
        Identity { address, name: ClientName::default(), hello, extended: true }
    }

    #[test]
    fn says_what_is_offered_and_nothing_else() {
        let all = XclientAttributes::parse("NAME ADDR port PROTO HELO LOGIN".split(' '));
        assert_eq!(
            command(&identity("[::ffff:192.0.2.7]:4025", "mx.abc.example"), all),
            "XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE] PORT=4025 PROTO=ESMTP HELO=mx.abc.example\r\n"
        );
        for (name, said) in [
            (ClientName::Confirmed("mx.abc.example".to_owned()), "NAME=mx.abc.example "),
            (ClientName::Confirmed("a b".to_owned()), "NAME=a+20b "),
            (ClientName::TemporarilyUnavailable, "NAME=[TEMPUNAVAIL] "),
        ] {
            let command = command(&Identity { name, ..identity("192.0.2.7:4025", "x") }, all);
            assert!(command.starts_with(&format!("XCLIENT ADDR=192.0.2.7 {said}")), "{command}");
        }
        let few = XclientAttributes::parse("ADDR".split(' '));
        let six = command(&identity("[2001:db8::7]:4025", "x"), few);
        assert_eq!(six, "XCLIENT ADDR=IPV6:2001:db8::7\r\n");
    }

    #[test]
    fn a_hello_breaks_out_of_no_attribute() {
        assert_eq!(xtext("a b=c+d\r\né"), "a+20b+3Dc+2Bd+0D+0A+C3+A9");
    }
}
