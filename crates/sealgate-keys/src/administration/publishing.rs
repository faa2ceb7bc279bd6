//! `public-key publish`: our people's certificates at the directory server, where others look for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealgate_core::address::Address;
use sealgate_core::keys::{Certificate, Timestamp};

use super::Administration;
use crate::error::StoreError;
use crate::learning::unix_now;
use crate::owner::Owner;
use crate::public_key_store::directory_server::Published;

impl Administration<'_> {
    /// Publishes the certificates of one mailbox, or of all that have secret keys; those of a whole domain belong to no
    /// entry. `published` is called with the outcome of each, and the rest goes on after one that failed.
    ///
    /// # Errors
    /// [`StoreError::Input`] where no directory server is described, [`StoreError::NotFound`] where there is nothing to
    /// publish.
    pub async fn publish_public_keys(
        &self,
        owner: Option<&Owner>,
        mut published: impl FnMut(&Address, Result<Published, StoreError>),
    ) -> Result<(), StoreError> {
        let undescribed = || {
            let what = "no directory server is described: add a table [public_keys.ldap]";
            StoreError::Input(what.to_owned())
        };
        let settings = self.stores.settings();
        let directory = settings.directory.as_ref().ok_or_else(undescribed)?;
        let people = self.publishable(owner).await?;
        if people.is_empty() {
            let what = "no certificate of a mailbox to publish; see `sealgate secret-key list`";
            return Err(StoreError::NotFound(what.to_owned()));
        }
        for (person, certificates) in people {
            let Ok(address) = Address::parse(&person) else { continue };
            let outcome = directory.publish(&address, &certificates).await;
            published(&address, outcome);
        }
        Ok(())
    }

    /// Whose certificates others are to find.
    pub(crate) async fn publishable(
        &self,
        owner: Option<&Owner>,
    ) -> Result<BTreeMap<String, Vec<Arc<Certificate>>>, StoreError> {
        let mut people: BTreeMap<String, Vec<Arc<Certificate>>> = BTreeMap::new();
        let now = Timestamp(unix_now());
        for entry in self.secret_keys(owner).await? {
            // What is over helps nobody there, and the directory gives out a bounded number.
            let is_of_use = entry.is_active && entry.certificate.not_after() >= now;
            if is_of_use && !entry.owner.starts_with('@') {
                people.entry(entry.owner).or_default().push(entry.certificate);
            }
        }
        Ok(people)
    }

    /// Whether the directory server can be used, where one is described; one line for the administrator.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn check_directory(&self) -> Result<Option<String>, StoreError> {
        match &self.stores.settings().directory {
            Some(directory) => directory.check().await.map(Some),
            None => Ok(None),
        }
    }
}
