//! What our own authorities issued and is not to be believed any more: their revocation lists.
//!
//! A list is the record of what is on it: it stands in the database beside imported ones, relays hear of it as of those, and
//! correspondents import it. Where one of our authorities has a list all have, since they are of one name, and what no list of
//! an issuer's name covers is not known to be good.

use std::sync::Arc;

use sealgate_core::keys::{Certificate, Timestamp};
use sealgate_core::trust::{ListSignature, is_issued_by};

use super::revocation::{Held, insert, of_issuer, remove};
use super::{Administration, RevocationReason};
use crate::authority::revocation_list::RevokedSoFar;
use crate::authority::{Authority, KeyAndCertificate};
use crate::database::Change;
use crate::error::StoreError;
use crate::import::crl;
use crate::key_check;
use crate::learning::unix_now;
use crate::master_key::MasterKey;
use crate::trust_source::stored_crls;

impl Administration<'_> {
    /// Revokes certificates that our authorities issued, all or none, and says how many were good until now or get a graver reason.
    ///
    /// # Errors
    /// [`StoreError::Input`] where another issued one of them, or it is an authority.
    pub async fn revoke(
        &self,
        certificates: &[Arc<Certificate>],
        reason: RevocationReason,
    ) -> Result<usize, StoreError> {
        let database = self.database;
        let write = move |master_key: Arc<MasterKey>| async move {
            let mut change = database.begin_change().await?;
            key_check::require(&mut change, &master_key).await?;
            let authorities = Self::open_all(&mut change, &master_key).await?;
            let is_authority = |one: &&Arc<Certificate>| {
                authorities.iter().any(|(authority, _)| authority.der() == one.der())
            };
            if let Some(authority) = certificates.iter().find(is_authority) {
                return Err(StoreError::Input(format!(
                    "{}: our own authority itself, which no list takes back; correspondents remove it",
                    authority.fingerprint()
                )));
            }
            let is_anothers = |one: &&Arc<Certificate>| {
                !authorities.iter().any(|(issuer, _)| is_issued_by(one, issuer))
            };
            if let Some(anothers) = certificates.iter().find(is_anothers) {
                return Err(StoreError::Input(format!(
                    "{}: not issued by our own authority but by {}, which is asked to revoke it",
                    anothers.fingerprint(),
                    anothers.issuer()
                )));
            }
            let mut count = 0_usize;
            for (issuer, authority) in &authorities {
                let of_it = certificates.iter().filter(|one| is_issued_by(one, issuer));
                count = count.saturating_add(
                    write_list(&mut change, issuer, authority, of_it, reason).await?,
                );
            }
            change.commit().await?;
            Ok(count)
        };
        let count = self.stores.master_key().await?.used(database, write).await?;
        self.stores.changed();
        Ok(count)
    }

    /// Those of these certificates that our authorities issued.
    ///
    /// # Errors
    /// [`StoreError`] where the database does not answer.
    pub async fn issued_by_us(
        &self,
        certificates: Vec<Arc<Certificate>>,
    ) -> Result<Vec<Arc<Certificate>>, StoreError> {
        let authorities = self.own_authorities().await?;
        let is_ours = |one: &Arc<Certificate>| {
            authorities.iter().any(|authority| is_issued_by(one, authority))
        };
        Ok(certificates.into_iter().filter(is_ours).collect())
    }

    /// The lists of our own authorities (DER), the newest authority's first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where nothing was revoked.
    pub async fn own_revocation_lists(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let stored = stored_crls(self.database).await?;
        let mut lists = Vec::new();
        for authority in self.own_authorities().await? {
            lists.extend(stored.iter().filter(|der| is_list_of(der, &authority)).cloned());
        }
        if lists.is_empty() {
            let what =
                "nothing that our own authority issued was revoked; see `sealgate ca revoke`";
            return Err(StoreError::NotFound(what.to_owned()));
        }
        Ok(lists)
    }
}

/// Gives an authority that was just made a list of its own where those before it have one.
pub(super) async fn list_successor(
    change: &mut Change<'_>,
    made: &KeyAndCertificate,
) -> Result<(), StoreError> {
    if of_issuer(change, made.certificate.subject()).await?.is_empty() {
        return Ok(());
    }
    let authority = Authority::load(&made.pkcs8, &made.certificate)?;
    let list = authority.revocation_list(RevokedSoFar::default(), Timestamp(unix_now()))?;
    insert_new(change, &list).await
}

/// Puts certificates on the list of the authority that issued them, and says how many are new there.
async fn write_list(
    change: &mut Change<'_>,
    issuer: &Arc<Certificate>,
    authority: &Authority,
    certificates: impl Iterator<Item = &Arc<Certificate>>,
    reason: RevocationReason,
) -> Result<usize, StoreError> {
    let held = of_issuer(change, issuer.subject()).await?;
    let held: Vec<Held> =
        held.into_iter().filter(|held| is_list_of(&held.list.der, issuer)).collect();
    let newest = held.iter().max_by(|a, b| a.list.number.cmp(&b.list.number));
    let mut so_far = match newest {
        Some(held) => RevokedSoFar::parse(&held.list.der).ok_or_else(|| {
            StoreError::Input(format!(
                "the revocation list in the database for {} was not written by `sealgate ca revoke`, which would lose what \
                 is on it",
                issuer.subject()
            ))
        })?,
        None => RevokedSoFar::default(),
    };
    let now = Timestamp(unix_now());
    let added = certificates.filter(|one| so_far.revoke(one, reason, now)).count();
    if added == 0 && !held.is_empty() {
        return Ok(0);
    }
    let list = authority.revocation_list(so_far, now)?;
    for held in &held {
        remove(change, &held.id).await?;
    }
    insert_new(change, &list).await?;
    Ok(added)
}

async fn insert_new(change: &mut Change<'_>, list: &[u8]) -> Result<(), StoreError> {
    let parsed = crl::parse(list)
        .ok_or_else(|| StoreError::Authority("its revocation list cannot be read".to_owned()))?;
    insert(change, &parsed).await
}

/// Whether this certificate's key signed a list.
fn is_list_of(der: &[u8], authority: &Arc<Certificate>) -> bool {
    let known = std::slice::from_ref(authority);
    ListSignature::check(der, known) == Some(ListSignature::Holds)
}
