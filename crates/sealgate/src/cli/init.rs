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
}

impl Init {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let directory = &self.directory;
        std::fs::create_dir_all(directory).map_err(|error| Failure::file(directory, &error))?;
        let configuration = directory.join("sealgate.toml");
        let database = directory.join("sealgate.db");
        let master_key = directory.join("master.key");
        for path in [&configuration, &database, &master_key] {
            if path.exists() {
                let what = format!(
                    "{}: exists already and is left alone; name another directory with --dir",
                    path.display()
                );
                return Err(Failure::Data(what));
            }
        }
        let Some(first) = self.domains.first() else {
            return Err(Failure::Usage("name at least one --domain".to_owned()));
        };
        let url = DatabaseUrl::Sqlite(database.clone());
        let authority = block_on(async { Ok(establish(&master_key, &url, first).await?) })?;
        files::write_new(&configuration, self.configuration().as_bytes(), 0o644)?;
        output::line(&format!("configuration  {}", configuration.display()))?;
        output::line(&format!("database       {}", database.display()))?;
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
        TEMPLATE.replace("@DOMAINS@", &domains.join(", ")).replace("@FIRST@", first)
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
