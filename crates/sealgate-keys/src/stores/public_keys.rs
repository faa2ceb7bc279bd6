//! Certificates of correspondents, from the public key stores in their order.

use sealgate_core::address::Address;
use sealgate_core::encrypt::{NoKey, choose_certificate};
use sealgate_core::keys::{PublicKey, Timestamp};

use super::secret_keys::SecretKeys;
use super::settings::Settings;
use super::{Found, Stores};
use crate::error::StoreError;
use crate::learning::unix_now;
use crate::public_key_store::directory_server::{Candidates, DirectoryServer};
use crate::public_key_store::{self, MailboxAndDomain, PublicKeyStoreKind};

impl Stores {
    /// Candidates of the stores up to the first that has a certificate which can be encrypted to now. What is expired or
    /// not trusted bars no later store. While one is away, or has answered in part, nothing that is found and unusable is
    /// the answer: that would be taken for "no key".
    ///
    /// Behind them comes the domain's, whose signature counts for all its mailboxes. It is encrypted to where none of the
    /// mailbox's own can be used in any store: not only expired, but also revoked. The administrator who takes a mailbox's certificate out
    /// gets the domain's as well, and without it mail that is encrypted where that is possible would leave in the clear. Where it is
    /// not known whether the mailbox's is revoked, it is not: mail waits.
    pub(super) async fn public_keys(
        &self,
        settings: &Settings,
        address: &Address,
    ) -> Result<Found<Vec<PublicKey>>, StoreError> {
        let mut keys = Vec::new();
        let mut of_domain = Vec::new();
        let (mut away, mut in_part) = (None, None);
        let mut standing = Err(NoKey::Unusable);
        for kind in &settings.config.public_keys {
            let is_found = standing.is_ok();
            let found = match kind {
                PublicKeyStoreKind::Ldap if is_found => continue,
                PublicKeyStoreKind::Embedded => {
                    public_key_store::embedded::keys_for(&self.database, address).await
                }
                PublicKeyStoreKind::Ldap => {
                    let directory = settings.directory.as_ref();
                    self.in_directory(directory, address).await.map(|candidates| {
                        in_part = candidates.not_whole;
                        MailboxAndDomain { mailbox: candidates.keys, domain: Vec::new() }
                    })
                }
            };
            match found {
                Ok(found) => {
                    of_domain.extend(found.domain);
                    if !is_found && !found.mailbox.is_empty() {
                        keys.extend(found.mailbox);
                        standing = self.standing(&keys, address).await;
                    }
                }
                Err(error) => away = Some(error),
            }
        }
        // A store outside this process is asked only for those whose keys it can have, and where nothing else is usable.
        let ours = settings.config.domains.contains(address.domain());
        let secret_keys = &settings.secret_keys;
        if matches!(secret_keys, SecretKeys::Embedded(_)) || (ours && standing.is_err()) {
            let own = secret_keys.own_certificates(&self.database, address).await?;
            keys.extend(own.mailbox);
            of_domain.extend(own.domain);
            if standing.is_err() {
                standing = self.standing(&keys, address).await;
            }
        }
        if standing == Err(NoKey::Unusable) && !of_domain.is_empty() {
            // Before the others: what stands first was of use when the answer was kept.
            of_domain.append(&mut keys);
            keys = of_domain;
            standing = self.standing(&keys, address).await;
        } else {
            keys.append(&mut of_domain);
        }
        let usable = standing.is_ok();
        let complete = away.is_none();
        match away.or(in_part) {
            Some(error) if !usable => Err(error),
            _ => Ok(Found { keys, complete, usable }),
        }
    }

    /// What the directory server has; what its owner's software reads may have been learned from mail.
    async fn in_directory(
        &self,
        directory: Option<&DirectoryServer>,
        address: &Address,
    ) -> Result<Candidates, StoreError> {
        let Some(directory) = directory else { return Ok(Candidates::default()) };
        let mut found = directory.find(address).await?;
        if found.keys.iter().any(|key| key.capabilities.is_none()) {
            let learned = public_key_store::embedded::learned(&self.database, address).await?;
            for key in &mut found.keys {
                key.capabilities = key.capabilities.or(learned);
            }
        }
        Ok(found)
    }

    /// Whether one of these can be encrypted to now. Where whom we trust is not known, nobody is, and mail waits anyway.
    async fn standing(&self, keys: &[PublicKey], address: &Address) -> Result<(), NoKey> {
        let trust = self.trust().await.map_err(|_| NoKey::Undecided)?;
        choose_certificate(keys, address, &trust, Timestamp(unix_now()), false).map(drop)
    }
}
