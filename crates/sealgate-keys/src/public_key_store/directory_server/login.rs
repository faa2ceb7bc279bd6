//! Who we are to a directory server, with what the configuration's files say, and whether we may say it now.
//!
//! A password that a server refused is not tried again until its file has another one or [`REFUSED_FOR`] is over: a few
//! wrong ones lock an account (Active Directory, OpenLDAP's ppolicy), and nothing would unlock it as long as mail comes. The
//! servers are copies of one directory and count together: one other is tried, and those that took it before are kept to, until
//! two have refused it.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use der::DateTime;
use ldap3::{Ldap, LdapResult};
use rustls::ClientConfig;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::search::{Fault, SUCCESS, reason};
use super::server::{Security, Server};
use super::{LdapBind, TABLE, fault};
use crate::error::StoreError;
use crate::secret_source::SecretSource;
use crate::tls::{self, ClientIdentity};

/// Who we are.
pub(super) struct Login {
    bind: LdapBind,
    pub(super) tls: Option<Arc<ClientConfig>>,
    tried: Mutex<Tried>,
}

/// A password as it is now, on its way to a server; none for those who have no need of one.
pub(super) struct Password(Option<Zeroizing<String>>);

/// What became of the password that was tried last.
#[derive(Default)]
struct Tried {
    digest: Vec<u8>,
    /// What each server said of it last.
    taken_by: Vec<Server>,
    refused_by: Vec<Server>,
    hold: Option<Hold>,
}

/// How long it is not tried again, and what to say until then.
struct Hold {
    until: Instant,
    why: String,
    /// Servers that refused it since it began.
    refusals: usize,
}

impl Login {
    /// Reads the files, except the password.
    pub(super) fn new(
        servers: &[Server],
        ca: Option<&Path>,
        bind: LdapBind,
    ) -> Result<Self, StoreError> {
        let is_plain = |server: &Server| server.security == Security::Plain;
        match &bind {
            LdapBind::Certificate { .. } if servers.iter().any(is_plain) => {
                return Err(fault("certificate", "needs ldaps:// or starttls = true"));
            }
            // RFC 4513 §5.1.2: a password without a name would be nobody.
            LdapBind::Simple { name, .. } if name.trim().is_empty() => {
                return Err(fault("bind_dn", "give the name that the password is for"));
            }
            _ => {}
        }
        let needs_tls = !servers.iter().all(is_plain);
        let identity = match &bind {
            LdapBind::Anonymous | LdapBind::Simple { .. } => None,
            LdapBind::Certificate { certificate, key } => Some(ClientIdentity { certificate, key }),
        };
        let tls = needs_tls.then(|| tls::client_config(TABLE, ca, identity)).transpose()?;
        Ok(Self { bind, tls, tried: Mutex::default() })
    }

    /// Reads the password; asked before the server is. Not where it is one that was refused and is not due yet.
    pub(super) fn password(&self, server: &Server) -> Result<Password, String> {
        let LdapBind::Simple { password, .. } = &self.bind else { return Ok(Password(None)) };
        let secret = password.read_line().map_err(|error| error.to_string())?;
        match self.tried(&secret).holds_back(server, Instant::now()) {
            Some(why) => Err(why.to_owned()),
            None => Ok(Password(Some(secret))),
        }
    }

    /// Binds (RFC 4511 §4.2). Says who we are now.
    pub(super) async fn bind(
        &self,
        server: &Server,
        ldap: &mut Ldap,
        Password(secret): Password,
    ) -> Result<String, String> {
        let (result, who) = match (&self.bind, &secret) {
            (LdapBind::Certificate { .. }, _) => {
                (ldap.sasl_external_bind().await, "our certificate".to_owned())
            }
            (LdapBind::Simple { name, .. }, Some(secret)) => {
                (ldap.simple_bind(name, secret).await, name.clone())
            }
            (LdapBind::Anonymous | LdapBind::Simple { .. }, _) => {
                return Ok("anonymous".to_owned());
            }
        };
        let result = result.map_err(|error| Fault::of_connection(error).into_reason())?;
        match (&self.bind, secret) {
            (LdapBind::Simple { .. }, Some(secret)) if result.rc == SUCCESS => {
                self.tried(&secret).was_taken(server);
                Ok(who)
            }
            (LdapBind::Simple { name, password }, Some(secret)) if is_refusal(&result) => {
                let why = refusal(server, name, &result, password);
                self.tried(&secret).was_refused(server, Instant::now(), why.clone());
                Err(why)
            }
            _ if result.rc == SUCCESS => Ok(who),
            _ => Err(format!("refuses {who}: {}", reason(&result))),
        }
    }

    /// What is known of this password. Another one is forgotten.
    fn tried(&self, secret: &str) -> MutexGuard<'_, Tried> {
        let digest = digest(secret);
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if tried.digest != digest {
            *tried = Tried::new(digest);
        }
        tried
    }
}

impl Tried {
    fn new(digest: Vec<u8>) -> Self {
        Self { digest, taken_by: Vec::new(), refused_by: Vec::new(), hold: None }
    }

    /// Whether this server is given it now; what to say where not.
    fn holds_back(&self, server: &Server, now: Instant) -> Option<&str> {
        let hold = self.hold.as_ref().filter(|_| !self.taken_by.contains(server))?;
        let has_refused = self.refused_by.contains(server);
        if !has_refused && hold.refusals < TRIES && now < hold.until {
            return None;
        }
        // When it is time again the others come first: one alone may have an old password, or a trouble of its own.
        let others_first = if has_refused { TURN } else { Duration::ZERO };
        (now < hold.until + others_first).then_some(&*hold.why)
    }

    fn was_taken(&mut self, server: &Server) {
        self.refused_by.retain(|one| one != server);
        if !self.taken_by.contains(server) {
            self.taken_by.push(server.clone());
        }
    }

    fn was_refused(&mut self, server: &Server, now: Instant, why: String) {
        let before = self.hold.as_ref().filter(|hold| now < hold.until);
        let refusals = before.map_or(0, |hold| hold.refusals).saturating_add(1);
        self.taken_by.retain(|one| one != server);
        // What two refuse is wrong, or the account is locked, and so it is at the others.
        if refusals >= TRIES {
            self.taken_by.clear();
        }
        if !self.refused_by.contains(server) {
            self.refused_by.push(server.clone());
        }
        self.hold = Some(Hold { until: now + REFUSED_FOR, why, refusals });
    }
}

/// Whether the server may count this as a wrong password.
fn is_refusal(result: &LdapResult) -> bool {
    matches!(result.rc, CONSTRAINT_VIOLATION | INVALID_CREDENTIALS | UNWILLING_TO_PERFORM)
}

fn refusal(server: &Server, name: &str, result: &LdapResult, password: &SecretSource) -> String {
    let (reason, until) = (reason(result), Time(SystemTime::now() + REFUSED_FOR));
    format!(
        "the password of {name} was refused by {server} ({reason}); not tried again before {until} unless {password} \
         changes: a few wrong passwords lock an account"
    )
}

fn digest(secret: &str) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes()).as_ref().to_vec()
}

/// For people: the second, in UTC.
struct Time(SystemTime);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_system_time(self.0) {
            Ok(time) => time.fmt(f),
            // A clock before 1970.
            Err(_) => f.write_str("a quarter of an hour from now"),
        }
    }
}

/// How long a refused password is not tried again. An account that was unlocked comes back by itself after it; two in half an
/// hour, the time after which Active Directory forgets wrong passwords unless told otherwise, stay below any sane limit.
const REFUSED_FOR: Duration = Duration::from_secs(15 * 60);
/// Servers that it is tried at before it is held back from all: one alone may have an old password, or a trouble of its own.
const TRIES: usize = 2;
/// How much longer by a server that refused it.
const TURN: Duration = Duration::from_secs(60);

// RFC 4511 §4.1.9. An account that is locked or switched off: 49 of Active Directory and OpenLDAP, 19 and 53 of 389 DS.
const CONSTRAINT_VIOLATION: u32 = 19;
const INVALID_CREDENTIALS: u32 = 49;
const UNWILLING_TO_PERFORM: u32 = 53;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn servers() -> [Server; 3] {
        ["ldap://127.0.0.1:1", "ldap://127.0.0.1:2", "ldap://127.0.0.1:3"]
            .map(|text| Server::parse(text, false).unwrap())
    }

    fn refuse(tried: &mut Tried, server: &Server, now: Instant) {
        let why = format!("refused by {server}");
        tried.was_refused(server, now, why);
    }

    /// To whom it may be given.
    fn open(tried: &Tried, servers: &[Server; 3], now: Instant) -> [bool; 3] {
        [0, 1, 2].map(|index| tried.holds_back(&servers[index], now).is_none())
    }

    #[test]
    fn a_refused_password_is_given_to_nobody_for_a_while_and_then_to_another_first() {
        let (servers, now) = (servers(), Instant::now());
        let mut tried = Tried::new(Vec::new());
        assert_eq!(open(&tried, &servers, now), [true; 3]);
        refuse(&mut tried, &servers[0], now);
        assert_eq!(open(&tried, &servers, now), [false, true, true]);
        assert_eq!(tried.holds_back(&servers[0], now), Some("refused by ldap://127.0.0.1:1"));
        refuse(&mut tried, &servers[1], now);
        assert_eq!(open(&tried, &servers, now), [false; 3]);
        assert_eq!(open(&tried, &servers, now + REFUSED_FOR - SECOND), [false; 3]);
        assert_eq!(open(&tried, &servers, now + REFUSED_FOR), [false, false, true]);
        // The others may be away.
        assert_eq!(open(&tried, &servers, now + REFUSED_FOR + TURN), [true; 3]);
        let now = now + REFUSED_FOR;
        refuse(&mut tried, &servers[2], now);
        assert_eq!(open(&tried, &servers, now + REFUSED_FOR - SECOND), [false; 3]);
    }

    #[test]
    fn who_took_a_password_is_given_it_until_two_have_refused_it() {
        let (servers, now) = (servers(), Instant::now());
        let mut tried = Tried::new(Vec::new());
        tried.was_taken(&servers[1]);
        // The first has an old password, say.
        refuse(&mut tried, &servers[0], now);
        assert_eq!(open(&tried, &servers, now), [false, true, true]);
        refuse(&mut tried, &servers[2], now);
        assert_eq!(open(&tried, &servers, now), [false; 3], "a password that was changed");
        let mut tried = Tried::new(Vec::new());
        servers.iter().for_each(|server| tried.was_taken(server));
        refuse(&mut tried, &servers[0], now);
        assert_eq!(open(&tried, &servers, now), [false, true, true]);
        refuse(&mut tried, &servers[2], now);
        assert_eq!(open(&tried, &servers, now), [false; 3], "two tries, and not one at each");
    }

    #[test]
    fn the_time_of_the_next_try_is_told() {
        let time = Time(SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_045_754));
        assert_eq!(time.to_string(), "2026-11-30T13:35:54Z");
    }

    #[test]
    fn what_is_no_refusal_of_a_password_is_tried_again_at_once() {
        let result = |rc| LdapResult {
            rc,
            matched: String::new(),
            text: String::new(),
            refs: Vec::new(),
            ctrls: Vec::new(),
        };
        for (rc, is) in [(19, true), (49, true), (53, true), (8, false), (51, false), (52, false)] {
            assert_eq!(is_refusal(&result(rc)), is, "{rc}");
        }
    }
}
