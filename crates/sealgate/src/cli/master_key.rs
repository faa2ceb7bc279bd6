//! `sealgate master-key`: the key under which the embedded secret keys are sealed.

use std::path::PathBuf;

use clap::Subcommand;
use sealgate_keys::administration::{Rotation, prepare_master_key, rotate_master_key};
use sealgate_keys::secret_source::SecretSource;

use super::session::block_on;
use super::{Failure, Globals, output};

#[derive(Debug, Subcommand)]
pub(crate) enum MasterKey {
    /// Seal everything under a new master key and put it in the old one's place; finishes a rotation that was cut off
    Rotate {
        /// Only make the new key, to copy it to the other machines of this database before it is used
        #[arg(long)]
        prepare: bool,
        /// Leave the new key in this file: needed where the key is a systemd credential
        #[arg(long, value_name = "FILE")]
        to_file: Option<PathBuf>,
    },
}

impl MasterKey {
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        let Self::Rotate { prepare, to_file } = self;
        let stores = globals.load()?.stores;
        if prepare {
            let path = prepare_master_key(&stores, to_file.as_deref())?;
            let path = path.display();
            return output::line(&format!(
                "prepared       {path}  (not in use yet: copy it to every machine with this \
                 master key, under the same name, then run this without --prepare)"
            ));
        }
        let rotate = async { Ok(rotate_master_key(&stores, to_file.as_deref()).await?) };
        show(&block_on(rotate)?, &stores.master_key)
    }
}

fn show(rotation: &Rotation, source: &SecretSource) -> Result<(), Failure> {
    let key = rotation.key.display();
    output::line(&match rotation.secrets {
        Some(count) => format!("sealed anew    {count} secrets, the authority's among them"),
        None => "sealed anew    before: this finishes a rotation that was cut off".to_owned(),
    })?;
    if let Some(remains) = &rotation.remains {
        output::warning(remains);
    }
    let Some(former) = &rotation.former else {
        return output::line(&format!(
            "master key     {key}  (put it in the place of {source} now, and keep a copy of it)"
        ));
    };
    output::line(&format!(
        "master key     {key}  (new: keep a copy of it somewhere else than copies of the database)"
    ))?;
    output::line(&format!(
        "before         {}  (opens copies of the database made until now; remove it with them)",
        former.display()
    ))?;
    match &rotation.earlier {
        Some(earlier) => output::line(&format!(
            "before that    {}  (opens older copies of the database; remove it with them)",
            earlier.display()
        )),
        None => Ok(()),
    }
}
