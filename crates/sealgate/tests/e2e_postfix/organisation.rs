//! Two organisations' sealgates, with their keys and each other's certificates in this database or elsewhere.

use std::sync::Arc;

use sealgate_testkit::gate::Gate;
use sealgate_testkit::key_server::KeyServer;
use sealgate_testkit::postgres::Postgres;
use sealgate_testkit::pykmip_server::PyKmipServer;
use sealgate_testkit::slapd::{Settings, Slapd};
use sealgate_testkit::softhsm::SoftHsm;

use super::elsewhere::{
    PROGRAM, describe_kmip, describe_token, embedded, move_keys, publish, serve_keys,
    set_master_key_aside, use_directory, use_key_server,
};

/// Where organisations have their secret keys, and find each other's certificates.
pub(crate) enum Stores {
    Embedded,
    DirectoryAndKeyManagement { directory: Slapd, keys: PyKmipServer },
    DirectoryAndTokens { directory: Slapd },
    PostgresqlAndKeyServers { database: Arc<Postgres> },
}

/// A sealgate, and where its keys are.
pub(crate) struct Organisation {
    // Dropped from the top: what asks ends before what answers.
    pub(crate) gate: Gate,
    key_server: Option<(KeyServer, Gate)>,
    _token: Option<SoftHsm>,
}

impl Organisation {
    fn of(gate: Gate) -> Self {
        Self { gate, key_server: None, _token: None }
    }

    pub(crate) fn log(&self) -> String {
        self.gate.log()
    }

    /// The gate whose authority its people's certificates are of.
    fn issuer(&self) -> &Gate {
        self.key_server.as_ref().map_or(&self.gate, |(_, key_host)| key_host)
    }
}

impl Stores {
    pub(crate) fn directory_and_key_management() -> Self {
        let directory = Slapd::start(Settings::default());
        Self::DirectoryAndKeyManagement { directory, keys: PyKmipServer::start() }
    }

    pub(crate) fn directory_and_tokens() -> Self {
        Self::DirectoryAndTokens { directory: Slapd::start(Settings::default()) }
    }

    pub(crate) fn postgresql_and_key_servers() -> Self {
        Self::PostgresqlAndKeyServers { database: Postgres::shared() }
    }

    /// An organisation whose people have keys here.
    pub(crate) fn found(&mut self, domain: &str, people: &[&str]) -> Organisation {
        let organisation = match self {
            Self::Embedded => Organisation::of(with_keys(domain, people, &[])),
            Self::DirectoryAndKeyManagement { directory, keys } => {
                let gate = with_keys(domain, people, &[]);
                let (certificate, key) = keys.client(&format!("gate.{domain}"));
                describe_kmip(&gate, keys.port, &keys.pki.root, &certificate, &key);
                move_keys(&gate, "kmip");
                use_directory(&gate, directory);
                publish(&gate, directory, people);
                Organisation::of(gate)
            }
            Self::DirectoryAndTokens { directory } => {
                let mut gate = with_keys(domain, people, &[]);
                let token = SoftHsm::new();
                describe_token(&mut gate, &token);
                move_keys(&gate, "pkcs11");
                use_directory(&gate, directory);
                publish(&gate, directory, people);
                Organisation { _token: Some(token), ..Organisation::of(gate) }
            }
            Self::PostgresqlAndKeyServers { database } => {
                let [keys, others] =
                    [(); 2].map(|()| database.socket_url(&database.create_database()));
                let key_host = with_keys(domain, people, &["--database", &keys]);
                let keys = serve_keys(&key_host);
                let gate = Gate::init_with(PROGRAM, &[domain], &["--database", &others]);
                use_key_server(&gate, &keys, &key_host);
                Organisation { key_server: Some((keys, key_host)), ..Organisation::of(gate) }
            }
        };
        if !matches!(self, Self::Embedded) {
            set_master_key_aside(&organisation.gate);
        }
        organisation
    }

    /// Makes the people of the other organisation known to one.
    pub(crate) fn introduce(&self, one: &Organisation, other: &Organisation, people: &[&str]) {
        let authority = other.issuer().authority();
        one.gate.must(&["anchor", "import", authority.to_str().unwrap()], b"");
        if self.has_directory() {
            return;
        }
        let files: Vec<_> = people.iter().map(|person| other.gate.certificate(person)).collect();
        let files = files.iter().map(|file| file.to_str().unwrap());
        let import: Vec<&str> = ["public-key", "import"].into_iter().chain(files).collect();
        one.gate.must(&import, b"");
    }

    /// Where keys are elsewhere, the sealgates' own databases hold none. What verified mail teaches of a correspondent may
    /// be there; nothing is ever encrypted to that.
    pub(crate) fn assert_where_keys_are(&self, organisations: [&Organisation; 2]) {
        for organisation in organisations {
            let secret_keys = embedded(&organisation.gate, "secret-key");
            let mut public_keys = embedded(&organisation.gate, "public-key");
            public_keys.retain(|key| key["state"] != "candidate");
            let is_embedded = matches!(self, Self::Embedded);
            assert_eq!(secret_keys.is_empty(), !is_embedded, "{secret_keys:?}");
            assert_eq!(public_keys.is_empty(), self.has_directory(), "{public_keys:?}");
        }
    }

    fn has_directory(&self) -> bool {
        matches!(self, Self::DirectoryAndKeyManagement { .. } | Self::DirectoryAndTokens { .. })
    }
}

fn with_keys(domain: &str, people: &[&str], init: &[&str]) -> Gate {
    let gate = Gate::init_with(PROGRAM, &[domain], init);
    for person in people {
        gate.generate_key(person, "rsa2048");
    }
    gate
}
