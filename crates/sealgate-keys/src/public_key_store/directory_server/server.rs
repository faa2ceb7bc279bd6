//! Where a directory server is and how the way to it is protected: an LDAP URL (RFC 4516) of scheme, host and port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use rustls::pki_types::ServerName;

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// A name or an IP address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) security: Security,
}

/// How the way is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Security {
    /// Not at all: loopback only.
    Plain,
    /// TLS begun by the StartTLS operation (RFC 4511 §4.14).
    StartTls,
    /// TLS from the first octet.
    Tls,
}

impl Server {
    /// Reads `ldaps://HOST[:PORT]` or `ldap://HOST[:PORT]`.
    pub(super) fn parse(text: &str, starttls: bool) -> Result<Self, String> {
        let form = || format!("`{text}`: give ldaps://HOST[:PORT] or ldap://HOST[:PORT]");
        let (security, port, rest) = if let Some(rest) = text.strip_prefix("ldaps://") {
            (Security::Tls, LDAPS_PORT, rest)
        } else if let Some(rest) = text.strip_prefix("ldap://") {
            (if starttls { Security::StartTls } else { Security::Plain }, LDAP_PORT, rest)
        } else {
            return Err(form());
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, digits)) if !digits.ends_with(']') => {
                let port = digits.parse().ok().filter(|port| *port != 0).ok_or_else(form)?;
                (host, port)
            }
            _ => (rest, port),
        };
        let server = Self { host: unbracketed(host).ok_or_else(form)?, port, security };
        server.refuse_unprotected()?;
        Ok(server)
    }

    fn refuse_unprotected(&self) -> Result<(), String> {
        if self.security == Security::Plain {
            let is_loopback = self.host.parse::<IpAddr>().map_or_else(
                |_| self.host.eq_ignore_ascii_case("localhost"),
                |ip| ip.is_loopback(),
            );
            return if is_loopback {
                Ok(())
            } else {
                Err(format!("`{self}` would be unprotected: use ldaps://, or set starttls = true"))
            };
        }
        Ok(())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.security == Security::Tls { "ldaps" } else { "ldap" };
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

fn unbracketed(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().ok().map(|ip| ip.to_string());
    }
    // What a certificate can name is a host; everything else of a URL (path, user, query) is not.
    let is_host = !host.contains(':') && ServerName::try_from(host).is_ok();
    is_host.then(|| host.to_ascii_lowercase())
}

/// RFC 4516 §2.
const LDAP_PORT: u16 = 389;
/// Registered with IANA for LDAP over TLS.
const LDAPS_PORT: u16 = 636;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_what_is_none_is_refused() {
        for (text, starttls, shown, security) in [
            ("ldaps://Ldap.Example", false, "ldaps://ldap.example:636", Security::Tls),
            ("ldaps://ldap.example/", true, "ldaps://ldap.example:636", Security::Tls),
            ("ldap://10.0.0.1:1389", true, "ldap://10.0.0.1:1389", Security::StartTls),
            ("ldap://127.0.0.1", false, "ldap://127.0.0.1:389", Security::Plain),
            ("ldaps://[2001:db8::1]", false, "ldaps://[2001:db8::1]:636", Security::Tls),
            ("ldap://[::1]", false, "ldap://[::1]:389", Security::Plain),
            ("ldap://[::1]:1389", false, "ldap://[::1]:1389", Security::Plain),
            ("ldap://localhost", false, "ldap://localhost:389", Security::Plain),
        ] {
            let server = Server::parse(text, starttls).unwrap();
            assert_eq!((server.to_string().as_str(), server.security), (shown, security));
        }
        for text in [
            "ldap://ldap.example",
            "ldap://10.0.0.1",
            "ldap://127.0.0.1.example",
            "ldap://[2001:db8::1]",
            "ldaps://",
            "ldaps://:636",
            "ldaps://ldap.example:0",
            "ldaps://ldap.example:65536",
            "ldaps://user@ldap.example",
            "ldaps://ldap.example/dc=example",
            "ldapi:///run/ldapi",
            "ldap.example",
        ] {
            assert!(Server::parse(text, false).is_err(), "{text}");
        }
    }
}
