//! The files with private keys that a configuration names, and which of them other users of the machine may read.
//!
//! The master key and a PIN are refused then. These are not, because installations that run would stop with an upgrade: `check` and
//! the log at the start warn.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sealgate_keys::public_key_store::directory_server::LdapBind;

use crate::config::Config;

/// All of them, whether they are there or not.
pub(crate) fn of(config: &Config) -> Vec<&Path> {
    let key_server = config.key_server.as_ref().and_then(|server| server.tls.as_ref());
    let kmip = config.stores.kmip.as_ref().and_then(|kmip| kmip.tls.as_ref());
    let ldap = config.stores.ldap.as_ref().and_then(|ldap| match &ldap.bind {
        LdapBind::Certificate { key, .. } => Some(key),
        _ => None,
    });
    let all = [
        config.tls.as_ref().map(|files| &files.key),
        config.dkim.as_ref().map(|dkim| &dkim.key),
        key_server.map(|tls| &tls.files.key),
        kmip.map(|tls| &tls.key),
        ldap,
    ];
    all.into_iter().flatten().map(AsRef::as_ref).collect()
}

/// What to do about a file that others may read, where they may.
pub(crate) fn advice(path: &Path) -> Option<String> {
    let file = path.canonicalize().ok()?;
    let mode = |path: &Path| path.metadata().ok().map(|file| file.mode() & 0o777);
    let of_file = mode(&file).filter(|mode| mode & OTHERS != 0)?;
    // Nobody comes to it through a directory that is closed to him.
    let is_passable = |directory| mode(directory).is_none_or(|mode| mode & PASSES_OTHERS != 0);
    let path = path.display();
    file.ancestors().skip(1).all(is_passable).then(|| {
        format!("{path}: others may read or write it (mode {of_file:04o}): chmod o= {path}")
    })
}

/// Writes it into the log.
pub(crate) fn warn(config: &Config) {
    for advice in of(config).into_iter().filter_map(advice) {
        tracing::warn!(advice, "a private key is open to others");
    }
}

/// The group may be the one of those who run us.
const OTHERS: u32 = 0o006;
const PASSES_OTHERS: u32 = 0o001;

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_open_to_others_where_they_come_to_it_and_may_read_it() {
        let bed = tempfile::tempdir().unwrap();
        let directory = bed.path().join("keys");
        let key = directory.join("dkim.pem");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(&key, "").unwrap();
        set_permissions(bed.path(), Permissions::from_mode(0o755)).unwrap();
        for (of_directory, of_key, is_open) in [
            (0o755, 0o644, true),
            (0o711, 0o604, true),
            (0o755, 0o640, false),
            (0o755, 0o600, false),
            (0o750, 0o644, false),
        ] {
            set_permissions(&directory, Permissions::from_mode(of_directory)).unwrap();
            set_permissions(&key, Permissions::from_mode(of_key)).unwrap();
            let advice = advice(&key);
            assert_eq!(advice.is_some(), is_open, "{of_directory:o} {of_key:o}: {advice:?}");
        }
        assert_eq!(advice(&directory.join("missing.pem")), None, "others say so");
    }

    #[test]
    fn every_private_key_that_a_configuration_names_is_looked_at() {
        let text = r#"
            version = 1
            domains = ["nec.example"]
            [tls]
            certificate = "1.pem"
            key = "1.key"
            [dkim]
            selector = "s"
            key = "2.key"
            [key_server]
            listen = "127.0.0.1:0"
            certificate = "3.pem"
            key = "3.key"
            client_ca = "ca.pem"
            audit = "audit.log"
            [[key_server.relay]]
            identity = "x"
            keys = ["*"]
            operations = ["sign"]
            [secret_keys.kmip]
            servers = ["localhost:5696"]
            ca = "ca.pem"
            certificate = "4.pem"
            key = "4.key"
            [public_keys.ldap]
            servers = ["ldaps://localhost"]
            base = "dc=nec,dc=example"
            ca = "ca.pem"
            certificate = "5.pem"
            key = "5.key"
        "#;
        let config = Config::read(text, Path::new("/etc/sealgate/sealgate.toml")).unwrap();
        let named: Vec<_> =
            of(&config).into_iter().map(|path| path.display().to_string()).collect();
        let all: Vec<_> = (1..=5).map(|number| format!("/etc/sealgate/{number}.key")).collect();
        assert_eq!(named, all);
    }
}
