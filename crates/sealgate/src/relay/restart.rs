//! What of a configuration takes effect with a restart only, so that a reload does not keep silent about it.

use std::net::SocketAddr;

use crate::config::Config;

/// Says what of a new configuration is not what the relay was started with and runs with.
pub(super) fn warn(started: &Config, new: &Config) {
    for key in changed(started, new) {
        tracing::warn!(key, "changed, which takes effect with a restart only");
    }
    for (key, address) in closed(started, new) {
        tracing::error!(key, %address, "taken away, but it stays open until a restart");
    }
}

/// Keys, and tables where any key of them counts.
fn changed(started: &Config, new: &Config) -> Vec<&'static str> {
    let bound = |config: &Config| config.limits.connections_per_next_hop_max;
    let is_moved = |one: Option<SocketAddr>, other| one.is_some() && one != other;
    let keys = [
        ("hostname", started.hostname != new.hostname),
        ("[inside] lmtp", is_moved(new.inside.lmtp, started.inside.lmtp)),
        ("[inside] smtp", is_moved(new.inside.smtp, started.inside.smtp)),
        ("[outside] smtp", is_moved(new.outside.smtp, started.outside.smtp)),
        ("[outside] ca", started.outside.ca != new.outside.ca),
        ("[database]", started.stores.database != new.stores.database),
        ("[dns]", started.dns != new.dns),
        ("[observe]", started.observe != new.observe),
        ("[limits] connections_per_next_hop_max", bound(started) != bound(new)),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// Entrances that the administrator means to have closed.
fn closed(started: &Config, new: &Config) -> Vec<(&'static str, SocketAddr)> {
    let entrances = [
        ("[inside] lmtp", started.inside.lmtp, new.inside.lmtp),
        ("[inside] smtp", started.inside.smtp, new.inside.smtp),
        ("[outside] smtp", started.outside.smtp, new.outside.smtp),
    ];
    let taken_away = entrances.into_iter().filter(|(_, _, new)| new.is_none());
    taken_away.filter_map(|(key, open, _)| Some((key, open?))).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const STARTED: &str = "version = 1\ndomains = [\"nec.example\"]\nhostname = \"gate.nec.example\"\n\
        [inside]\nlmtp = \"127.0.0.1:24\"\nsmtp = \"127.0.0.1:26\"\nmail_server = \"smtp://127.0.0.1:2526\"\n\
        [outside]\nsmtp = \"0.0.0.0:25\"\nca = \"a.pem\"\n\
        [database]\nurl = \"sqlite:a.db\"\n[dns]\ndnssec = \"validate\"\n\
        [observe]\nlisten = \"127.0.0.1:9725\"\nlog = \"json\"\n\
        [limits]\nconnections_per_next_hop_max = 10\n";

    fn read(text: &str) -> Config {
        Config::read(text, Path::new("/etc/sealgate/sealgate.toml")).unwrap()
    }

    #[test]
    fn everything_that_waits_for_a_restart_is_named() {
        let started = read(STARTED);
        assert_eq!(changed(&started, &started), [""; 0]);
        for (from, to, key) in [
            ("gate.nec.example", "mail.nec.example", "hostname"),
            ("127.0.0.1:24\"", "127.0.0.1:241\"", "[inside] lmtp"),
            ("127.0.0.1:26\"", "127.0.0.1:261\"", "[inside] smtp"),
            ("0.0.0.0:25", "0.0.0.0:251", "[outside] smtp"),
            ("a.pem", "b.pem", "[outside] ca"),
            ("a.db", "b.db", "[database]"),
            ("validate", "off", "[dns]"),
            ("9725", "9726", "[observe]"),
            ("json", "text", "[observe]"),
            ("_max = 10", "_max = 11", "[limits] connections_per_next_hop_max"),
        ] {
            assert!(STARTED.contains(from), "{from}");
            assert_eq!(changed(&started, &read(&STARTED.replace(from, to))), [key]);
        }
    }

    #[test]
    fn what_was_to_be_closed_is_named() {
        let started = read(STARTED);
        assert_eq!(closed(&started, &started), []);
        for line in
            ["lmtp = \"127.0.0.1:24\"\n", "smtp = \"127.0.0.1:26\"\n", "smtp = \"0.0.0.0:25\"\n"]
        {
            let without = read(&STARTED.replace(line, ""));
            assert_eq!(closed(&started, &without).len(), 1, "{line}");
            assert_eq!(changed(&started, &without), [""; 0], "{line}");
        }
    }
}
