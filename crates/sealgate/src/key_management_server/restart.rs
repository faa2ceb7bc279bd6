//! What of a configuration the key server takes at its start only, so that a reload does not keep silent about it.

use std::net::SocketAddr;
use std::path::PathBuf;

use sealgate_keys::database::DatabaseUrl;
use sealgate_keys::secret_source::SecretSource;

use crate::config::{Config, KeyServerConfig, LogFormat};

/// What it was started with, and runs with whatever is loaded later.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    listen: Option<SocketAddr>,
    socket: Option<PathBuf>,
    audit: Option<PathBuf>,
    database: DatabaseUrl,
    master_key: SecretSource,
    log: LogFormat,
}

impl Standing {
    pub(super) fn new(config: &Config, server: &KeyServerConfig) -> Self {
        Self {
            listen: server.tls.as_ref().map(|tls| tls.listen),
            socket: server.socket.clone(),
            audit: server.audit.clone(),
            database: config.stores.database.clone(),
            master_key: config.stores.master_key.clone(),
            log: config.observe.log,
        }
    }

    /// Says what of a new configuration does not hold yet.
    pub(super) fn warn(&self, new: &Self) {
        for key in self.changed(new) {
            tracing::warn!(key, "changed, which takes effect with a restart only");
        }
        for (key, becomes) in self.closed(new) {
            tracing::error!(key, becomes, "taken away, which is whole with a restart only");
        }
    }

    /// Keys, and tables where any key of them counts.
    fn changed(&self, new: &Self) -> Vec<&'static str> {
        let keys = [
            ("[key_server] listen", new.listen.is_some() && self.listen != new.listen),
            ("[key_server] socket", new.socket.is_some() && self.socket != new.socket),
            ("[key_server] audit", self.audit != new.audit),
            ("[database]", self.database != new.database),
            ("[master_key]", self.master_key != new.master_key),
            ("[observe] log", self.log != new.log),
        ];
        keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// Entrances that the administrator means to have closed, and what becomes of those who come there.
    fn closed(&self, new: &Self) -> Vec<(&'static str, &'static str)> {
        let entrances = [
            // Without a certificate nobody can be served.
            ("[key_server] listen", UNSERVED, self.listen.is_some() && new.listen.is_none()),
            ("[key_server] socket", SERVED, self.socket.is_some() && new.socket.is_none()),
        ];
        let taken_away = entrances.into_iter().filter(|(.., is_taken_away)| *is_taken_away);
        taken_away.map(|(key, becomes, _)| (key, becomes)).collect()
    }
}

const UNSERVED: &str = "connections are taken and closed";
const SERVED: &str = "it stays open to the users who are entitled";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const STARTED: &str = "version = 1\ndomains = [\"nec.example\"]\n\
        [database]\nurl = \"sqlite:a.db\"\n[master_key]\nfile = \"a.key\"\n[observe]\nlog = \"json\"\n\
        [key_server]\nlisten = \"127.0.0.1:5696\"\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"a\"\n\
        socket = \"a.sock\"\naudit = \"a.log\"\nget = false\n\
        [[key_server.relay]]\nuid = 1\nkeys = [\"*\"]\noperations = [\"sign\"]\n";
    const TLS: &str =
        "listen = \"127.0.0.1:5696\"\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"a\"\n";

    fn read(text: &str) -> Standing {
        let config = Config::read(text, Path::new("/etc/sealgate/sealgate.toml")).unwrap();
        Standing::new(&config, config.key_server.as_ref().unwrap())
    }

    #[test]
    fn everything_that_waits_for_a_restart_is_named() {
        let started = read(STARTED);
        for same in [STARTED, &STARTED.replace("get = false", "get = true")] {
            assert_eq!(started.changed(&read(same)), [""; 0]);
        }
        for (from, to, key) in [
            ("5696", "5697", "[key_server] listen"),
            ("a.sock", "b.sock", "[key_server] socket"),
            ("a.log", "b.log", "[key_server] audit"),
            ("audit = \"a.log\"\n", "", "[key_server] audit"),
            ("a.db", "b.db", "[database]"),
            ("a.key", "b.key", "[master_key]"),
            ("json", "text", "[observe] log"),
        ] {
            assert!(STARTED.contains(from), "{from}");
            let new = read(&STARTED.replace(from, to));
            assert_eq!(started.changed(&new), [key]);
            assert_eq!(started.closed(&new), []);
        }
        let (bare, key) = (read(&STARTED.replace(TLS, "")), "[key_server] listen");
        assert_eq!(bare.changed(&started), [key], "opened with a restart");
    }

    #[test]
    fn what_was_to_be_closed_is_named() {
        let started = read(STARTED);
        let named = STARTED.replace("uid = 1", "identity = \"gate\"");
        for (new, key) in [
            (STARTED.replace(TLS, ""), ("[key_server] listen", UNSERVED)),
            (named.replace("socket = \"a.sock\"\n", ""), ("[key_server] socket", SERVED)),
        ] {
            let new = read(&new);
            assert_eq!(started.closed(&new), [key]);
            assert_eq!(started.changed(&new), [""; 0]);
        }
    }
}
