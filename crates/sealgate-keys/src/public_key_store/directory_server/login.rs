//! Who we are to a directory server, with what the configuration's files say, and whether we may say it now.
//!
//! A password that a server refused is not tried again until its file has another one or [`REFUSED_FOR`] is over: a few
//! wrong ones lock an account (Active Directory, OpenLDAP's ppolicy), and nothing would unlock it as long as mail comes. It
//! is tried at no other server either, because they are copies of one directory and count together.

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
    /// The last password that was refused, and none since was taken.
    refused: Mutex<Option<Refused>>,
}

/// A password as it is now, on its way to a server; none for those who have no need of one.
pub(super) struct Password(Option<Zeroizing<String>>);

/// A password that was refused.
struct Refused {
    digest: Vec<u8>,
    /// When it is tried again.
    until: Instant,
    /// What to say until then.
    why: String,
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
        Ok(Self { bind, tls, refused: Mutex::default() })
    }

    /// Reads the password; asked before a server is. Not where it is one that was refused and is not due yet.
    pub(super) fn password(&self) -> Result<Password, String> {
        let LdapBind::Simple { password, .. } = &self.bind else { return Ok(Password(None)) };
        let secret = password.read_line().map_err(|error| error.to_string())?;
        match &*self.refused() {
            Some(refused) if refused.holds_back(&secret, Instant::now()) => {
                Err(refused.why.clone())
            }
            _ => Ok(Password(Some(secret))),
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
        if result.rc == SUCCESS {
            *self.refused() = None;
            return Ok(who);
        }
        match (&self.bind, secret) {
            (LdapBind::Simple { name, password }, Some(secret)) if is_refusal(&result) => {
                let refused = Refused::new(&secret, Instant::now(), |until| {
                    refusal(server, name, &result, password, until)
                });
                let why = refused.why.clone();
                *self.refused() = Some(refused);
                Err(why)
            }
            _ => Err(format!("refuses {who}: {}", reason(&result))),
        }
    }

    fn refused(&self) -> MutexGuard<'_, Option<Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refused {
    fn new(secret: &str, now: Instant, why: impl Fn(Time) -> String) -> Self {
        let until = Time(SystemTime::now() + REFUSED_FOR);
        Self { digest: digest(secret), until: now + REFUSED_FOR, why: why(until) }
    }

    fn holds_back(&self, secret: &str, now: Instant) -> bool {
        now < self.until && self.digest == digest(secret)
    }
}

/// Whether the server may count this as a wrong password.
fn is_refusal(result: &LdapResult) -> bool {
    matches!(result.rc, CONSTRAINT_VIOLATION | INVALID_CREDENTIALS | UNWILLING_TO_PERFORM)
}

fn refusal(
    server: &Server,
    name: &str,
    result: &LdapResult,
    password: &SecretSource,
    until: Time,
) -> String {
    let reason = reason(result);
    format!(
        "the password of {name} was refused by {server} ({reason}); not tried again before {until}, at no server, unless \
         {password} changes: a few wrong passwords lock an account"
    )
}

fn digest(secret: &str) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes()).as_ref().to_vec()
}

/// For people: the second, in UTC.
#[derive(Clone, Copy)]
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

// RFC 4511 §4.1.9. An account that is locked or switched off: 49 of Active Directory and OpenLDAP, 19 and 53 of 389 DS.
const CONSTRAINT_VIOLATION: u32 = 19;
const INVALID_CREDENTIALS: u32 = 49;
const UNWILLING_TO_PERFORM: u32 = 53;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_password_is_held_back_for_a_while_and_another_one_is_not() {
        let now = Instant::now();
        let refused = Refused::new("wrong", now, |until| format!("before {until}"));
        assert!(refused.holds_back("wrong", now));
        assert!(!refused.holds_back("right", now));
        let almost = now + REFUSED_FOR - Duration::from_secs(1);
        assert!(refused.holds_back("wrong", almost) && !refused.holds_back("right", almost));
        assert!(!refused.holds_back("wrong", now + REFUSED_FOR), "an unlocked account comes back");
        assert!(
            refused.why.starts_with("before 20") && refused.why.ends_with('Z'),
            "{}",
            refused.why
        );
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
