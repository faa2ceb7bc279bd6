//! `sealgate init`: a configuration, a database, a master key and the organisation's own authority.

use std::path::{Path, PathBuf};

use clap::Args;
use sealgate_core::address::Domain;
use sealgate_keys::administration::establish;
use sealgate_keys::database::DatabaseUrl;

use super::session::block_on;
use super::{Failure, files, output};

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// A domain of yours; give it once for each
    #[arg(long = "domain", required = true, value_name = "DOMAIN", value_parser = parse_domain)]
    domains: Vec<Domain>,
    /// Where the files go
    #[arg(long = "dir", value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// sqlite:FILE, or postgres://USER@HOST/DATABASE for an empty database that several relays share
    #[arg(long, value_name = "URL", default_value = "sqlite:sealgate.db")]
    database: String,
}

impl Init {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let directory = &self.directory;
        std::fs::create_dir_all(directory).map_err(|error| Failure::file(directory, &error))?;
        let configuration = directory.join("sealgate.toml");
        let master_key = directory.join("master.key");
        // Parsed here and not by clap, which would repeat a password in its complaint.
        let written: DatabaseUrl =
            self.database.parse().map_err(|why| Failure::Usage(format!("--database: {why}")))?;
        let url = written.within(directory);
        let file = match &url {
            DatabaseUrl::Sqlite(path) => Some(path),
            _ => None,
        };
        let other_directory = "another directory with --dir";
        let other_file = match &written {
            // --dir would not change it.
            DatabaseUrl::Sqlite(path) if path.is_absolute() => "another file with --database",
            _ => "another file with --database, or another directory with --dir",
        };
        for (path, other) in [
            (Some(&configuration), other_directory),
            (file, other_file),
            (Some(&master_key), other_directory),
        ] {
            if let Some(path) = path.filter(|path| path.exists()) {
                let path = path.display();
                let what = format!("{path}: exists already and is left alone; name {other}");
                return Err(Failure::Data(what));
            }
        }
        let Some(first) = self.domains.first() else {
            return Err(Failure::Usage("name at least one --domain".to_owned()));
        };
        let mode = if written.has_password() { 0o600 } else { 0o644 };
        files::write_new(&configuration, self.configuration().as_bytes(), mode)?;
        let established = block_on(async { Ok(establish(&master_key, &url, first).await?) });
        if established.is_err() {
            // Or it would be in the way of the next attempt, which names it where it is.
            let _ = std::fs::remove_file(&configuration);
        }
        let authority = established?;
        output::line(&format!("configuration  {}", configuration.display()))?;
        output::line(&format!("database       {url}"))?;
        output::line(&format!(
            "master key     {}  (keep a copy of it somewhere else than copies of the database)",
            master_key.display()
        ))?;
        output::line(&format!("authority      {}", authority.subject()))?;
        output::line(&format!("next: sealgate {}secret-key generate ADDR@{first}", flag(directory)))
    }

    fn configuration(&self) -> String {
        let domains: Vec<_> = self.domains.iter().map(|domain| format!("\"{domain}\"")).collect();
        let first = self.domains.first().map_or("", Domain::as_str);
        // As TOML writes a text that holds quotes.
        let database = toml::Value::from(self.database.as_str()).to_string();
        TEMPLATE
            .replace("@DOMAINS@", &domains.join(", "))
            .replace("@FIRST@", first)
            .replace("\"@DATABASE@\"", &database)
    }
}

/// `--config` where the configuration is not found by itself.
fn flag(directory: &Path) -> String {
    if directory == Path::new(".") {
        return String::new();
    }
    format!("--config {} ", directory.join("sealgate.toml").display())
}

fn parse_domain(text: &str) -> Result<Domain, String> {
    match Domain::parse(text) {
        Ok(domain) if !domain.is_literal() => Ok(domain),
        _ => Err(format!("`{text}` is no domain name")),
    }
}

const TEMPLATE: &str = include_str!("init/sealgate.toml");
