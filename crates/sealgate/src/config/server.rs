//! Where mail is handed to: a fixed server, or what the recipient's MX records say.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use sealgate_core::address::Domain;

/// Where sealed mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NextHop {
    /// Always this server.
    Fixed(Server),
    /// The mail exchangers of the recipient's domain (RFC 5321 §5.1).
    Mx,
}

/// A fixed server, `smtp://HOST[:PORT]` or `lmtp://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// LMTP (RFC 2033) instead of SMTP.
    pub(crate) lmtp: bool,
    /// Name or address, an IPv6 address without brackets.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
}

impl Server {
    /// Whether it is named by an address at which somebody who listens here is reached. What a name leads to is not looked at.
    pub(super) fn is_at(&self, open: SocketAddr) -> bool {
        let is_there = self.host.parse::<IpAddr>().is_ok_and(|address| {
            let (address, open) = (address.to_canonical(), open.ip().to_canonical());
            address == open || (open.is_unspecified() && address.is_loopback())
        });
        is_there && open.port() == self.port && open.port() != 0
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no server: write smtp://HOST:PORT or lmtp://HOST:PORT");
        let (lmtp, rest) = if let Some(rest) = text.strip_prefix("smtp://") {
            (false, rest)
        } else if let Some(rest) = text.strip_prefix("lmtp://") {
            (true, rest)
        } else {
            return Err(bad());
        };
        let (host, port) = split_port(rest.trim_end_matches('/')).ok_or_else(bad)?;
        let port = match port {
            Some(digits) => digits.parse().map_err(|_| bad())?,
            // RFC 2033 §5: LMTP must not use port 25, and has none of its own.
            None if lmtp => return Err(bad()),
            None => SMTP_PORT,
        };
        let known = host.parse::<IpAddr>().is_ok() || Domain::parse(host).is_ok();
        if !known || host.starts_with('[') {
            return Err(bad());
        }
        Ok(Self { lmtp, host: host.to_owned(), port })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.lmtp { "lmtp" } else { "smtp" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for NextHop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "mx" {
            return Ok(Self::Mx);
        }
        let server = text.parse();
        server.map(Self::Fixed).map_err(|why: String| format!("{why}, or \"mx\""))
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(server) => server.fmt(f),
            Self::Mx => f.write_str("mx"),
        }
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; the brackets go.
pub(super) fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None if after.is_empty() => Some((host, None)),
            None => None,
        };
    }
    Some(text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))))
}

/// RFC 5321 §4.5.4.2.
const SMTP_PORT: u16 = 25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_written_back() {
        for (text, again) in [
            ("smtp://relay.example", "smtp://relay.example:25"),
            ("smtp://127.0.0.1:2526", "smtp://127.0.0.1:2526"),
            ("lmtp://[::1]:24", "lmtp://[::1]:24"),
            ("smtp://relay.example:25/", "smtp://relay.example:25"),
        ] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), again);
        }
        assert_eq!("mx".parse(), Ok(NextHop::Mx));
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in [
            "",
            "relay.example",
            "http://relay.example",
            "smtp://",
            "smtp://a b:25",
            "smtp://a:b",
            "smtp://a:70000",
            "lmtp://relay.example",
            "smtp://[::1",
            "smtp://[::1]x",
        ] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }
}
