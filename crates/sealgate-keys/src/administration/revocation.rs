//! Revocation lists that were imported (RFC 5280 §5): they come, take the place of older ones of the same scope, and go. Of
//! changes to a list that is not held several may be needed.
//!
//! An issuer may have several at once: for each of its keys, for parts of its certificates, and of changes. None of these takes
//! another's place: what it does not cover would be good again, or unknown.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use sealgate_core::hex;
use sealgate_core::keys::{Certificate, Timestamp};
use sealgate_core::trust::ListSignature;

use super::{Administration, found};
use crate::certificates;
use crate::database::{Change, Statement};
use crate::error::StoreError;
use crate::import::crl::{self, Crl, ListScope};
use crate::learning::unix_now;
use crate::trust_source::{Role, certificates as authorities, column, stored_crls};

/// A certificate revocation list (RFC 5280 §5) in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// SHA-256 of the list (DER), in lower-case hexadecimal.
    pub sha256: String,
    /// What it is about.
    pub scope: ListScope,
    /// The authority's own count (CRLNumber), where it has one.
    pub number: Option<String>,
    /// Issued then.
    pub this_update: Timestamp,
    /// A newer one is there by then; without it the list is never current.
    pub next_update: Option<Timestamp>,
    /// `None`: in the database.
    pub file: Option<PathBuf>,
}

/// What became of a list that was to be taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListImport {
    /// It is there already.
    Held,
    /// One that is newer, by its number or else by its date, is there, of this SHA-256.
    Older(String),
    /// It is in use, and its signature holds.
    Taken,
    /// It is there, and settles nothing until the key that signed it is known.
    TakenUnchecked,
}

impl Administration<'_> {
    /// Takes in a revocation list. It takes the place of an older one of its scope; one that is newer stays.
    ///
    /// # Errors
    /// [`StoreError::Input`] where it is none, or a certificate of its issuer is held and it is not signed with its key.
    pub async fn import_crl(&self, der: &[u8]) -> Result<ListImport, StoreError> {
        let known = self.authorities_known().await?;
        let signature = |list: &Crl| ListSignature::check(&list.der, &known);
        let (list, signed) = signed_list(der, &known)?;
        let mut change = self.database.begin_change().await?;
        let base = list.scope.base();
        let mut all = of_issuer(&mut change, &list.scope.issuer).await?;
        all.retain(|held| held.list.scope.base() == base);
        // One that came while its issuer was unknown, and turns out to be nobody's, keeps no other out.
        let is_forged = |held: &Held| signature(&held.list) == Some(ListSignature::IsFalse);
        let (forged, genuine): (Vec<_>, Vec<_>) = all.into_iter().partition(is_forged);
        let mut in_files = self.lists_in_files();
        in_files.retain(|list| signature(list) != Some(ListSignature::IsFalse));
        let complete = || {
            let stored = genuine.iter().map(|held| &held.list);
            stored.chain(&in_files).filter(|one| one.scope == base)
        };
        let of_scope = |held: &&Held| held.list.scope == list.scope;
        for held in genuine.iter().filter(of_scope) {
            if held.list.der == list.der {
                return Ok(ListImport::Held);
            }
            if list.is_older_than(&held.list) {
                if held.list.replaces(&list, complete()) {
                    return Ok(ListImport::Older(digest(&held.list.der)));
                }
            } else if list.is_as_new_as(&held.list) && held.list.replaces(&list, complete()) {
                return Ok(ListImport::Held);
            } else if list.replaces(&held.list, complete()) {
                remove(&mut change, &held.id).await?;
            }
        }
        for held in forged.iter().filter(of_scope) {
            remove(&mut change, &held.id).await?;
        }
        insert(&mut change, &list).await?;
        change.commit().await?;
        self.stores.changed();
        Ok(match signed {
            ListSignature::Holds => ListImport::Taken,
            _ => ListImport::TakenUnchecked,
        })
    }

    /// Lists of `[trust] crls`. A file that cannot be read takes no list's place, and is named where it is used.
    fn lists_in_files(&self) -> Vec<Crl> {
        let settings = self.stores.settings();
        let files = settings.trust.files().iter();
        let ders = files.filter_map(|path| crl::read_file(path).ok()).flatten();
        ders.filter_map(|der| crl::parse(&der)).collect()
    }

    /// Looks at lists that are to come in after these authorities, and changes nothing: the first that would be refused is.
    ///
    /// # Errors
    /// As [`Self::import_crl`].
    pub async fn check_crls(
        &self,
        lists: &[Vec<u8>],
        authorities: &[Arc<Certificate>],
    ) -> Result<(), StoreError> {
        let mut known = self.authorities_known().await?;
        known.extend_from_slice(authorities);
        for der in lists {
            signed_list(der, &known)?;
        }
        Ok(())
    }

    /// The revocation lists in use, those of the database first.
    ///
    /// # Errors
    /// [`StoreError`] where the database does not answer, or a file cannot be read.
    pub async fn revocation_lists(&self) -> Result<Vec<RevocationList>, StoreError> {
        let entry = |der: &Vec<u8>, file: Option<&PathBuf>| {
            crl::parse(der).map(|list| RevocationList {
                sha256: digest(der),
                number: list.number.as_ref().map(ToString::to_string),
                this_update: Timestamp(list.this_update),
                next_update: list.next_update.map(Timestamp),
                scope: list.scope,
                file: file.cloned(),
            })
        };
        let stored = stored_crls(self.database).await?;
        let mut lists: Vec<_> = stored.iter().filter_map(|der| entry(der, None)).collect();
        for path in self.stores.settings().trust.files() {
            let read = crl::read_file(path)?;
            lists.extend(read.iter().filter_map(|der| entry(der, Some(path))));
        }
        Ok(lists)
    }

    /// Takes lists out of the database, the one with this SHA-256 or all of an issuer; says how many.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is none, [`StoreError::Input`] where it is one of our own authority's.
    pub async fn remove_revocation_lists(&self, name: &str) -> Result<u64, StoreError> {
        let sha256 = name.replace(':', "").to_ascii_lowercase();
        let mut own = self.own_authorities().await?;
        // Nobody believes anything of one that has ended.
        own.retain(|authority| authority.not_after().0 >= unix_now());
        let mut change = self.database.begin_change().await?;
        let mut removed = 0_u64;
        for row in rows(&mut change, Statement::new("SELECT id, issuer, crl FROM crls")).await? {
            if row.issuer == name || digest(&row.der) == sha256 {
                if ListSignature::check(&row.der, &own) == Some(ListSignature::Holds) {
                    return Err(StoreError::Input(format!(
                        "{name}: our own authority's list, the only record of what it has revoked, which is not taken back"
                    )));
                }
                remove(&mut change, &row.id).await?;
                removed = removed.saturating_add(1);
            }
        }
        change.commit().await?;
        self.stores.changed();
        found(removed, || {
            format!(
                "{name}: no such revocation list in the database; see `sealgate crl list`. Those in \
                 files stand in [trust] crls"
            )
        })
    }

    /// Certificates that an issuer of lists may have: authorities, and what came with our own keys and with correspondents'
    /// certificates that the administrator chose.
    async fn authorities_known(&self) -> Result<Vec<Arc<Certificate>>, StoreError> {
        let mut known = authorities(self.database, Role::Anchor).await?;
        known.extend(authorities(self.database, Role::Intermediate).await?);
        let select = Statement::new(
            "SELECT intermediates AS chain FROM public_keys WHERE state = 'pinned' \
             UNION SELECT chain FROM secret_keys",
        );
        let chains = column(self.database, select, "chain").await?;
        // What cannot be read is named where it is used.
        known.extend(chains.iter().filter_map(|chain| certificates::split(chain)).flatten());
        let mut seen = HashSet::new();
        known.retain(|certificate| seen.insert(certificate.fingerprint().0));
        Ok(known)
    }
}

/// A list that its issuer signed, as far as that is known.
fn signed_list(der: &[u8], known: &[Arc<Certificate>]) -> Result<(Crl, ListSignature), StoreError> {
    let none = || StoreError::Input("not a certificate revocation list".to_owned());
    let list = crl::parse(der).ok_or_else(none)?;
    match ListSignature::check(&list.der, known) {
        Some(signed @ (ListSignature::Holds | ListSignature::IsUnknown)) => Ok((list, signed)),
        Some(ListSignature::IsFalse) | None => Err(StoreError::Input(format!(
            "the revocation list is not signed by {}: its signature does not verify with the certificates held of that \
             name. Where the authority has a new key, import its certificate first",
            list.scope.issuer
        ))),
    }
}

/// A list in the database.
pub(super) struct Held {
    pub(super) id: String,
    pub(super) list: Crl,
}

struct Row {
    id: String,
    issuer: String,
    der: Vec<u8>,
}

pub(super) async fn of_issuer(
    change: &mut Change<'_>,
    issuer: &str,
) -> Result<Vec<Held>, StoreError> {
    let select = Statement::new("SELECT id, issuer, crl FROM crls WHERE issuer = $1");
    let rows = rows(change, select.bind(issuer)).await?;
    let held = |row: Row| Some(Held { id: row.id, list: crl::parse(&row.der)? });
    Ok(rows.into_iter().filter_map(held).collect())
}

async fn rows(change: &mut Change<'_>, select: Statement<'_>) -> Result<Vec<Row>, StoreError> {
    let found = change.fetch_all(select).await?;
    let row = |row: &crate::database::Row| {
        Ok(Row { id: row.get("id")?, issuer: row.get("issuer")?, der: row.get("crl")? })
    };
    let database = change.database();
    found
        .iter()
        .map(|found| row(found).map_err(|error: sqlx::Error| database.error(&error)))
        .collect()
}

pub(super) async fn insert(change: &mut Change<'_>, list: &Crl) -> Result<(), StoreError> {
    let id = certificates::random_id()?;
    let insert =
        Statement::new("INSERT INTO crls (id, issuer, crl, this_update) VALUES ($1, $2, $3, $4)")
            .bind(&id)
            .bind(&list.scope.issuer)
            .bind(&list.der)
            .bind(list.this_update);
    change.execute(insert).await.map(drop)
}

pub(super) async fn remove(change: &mut Change<'_>, id: &str) -> Result<(), StoreError> {
    change.execute(Statement::new("DELETE FROM crls WHERE id = $1").bind(id)).await.map(drop)
}

fn digest(der: &[u8]) -> String {
    hex::text(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref())
}
