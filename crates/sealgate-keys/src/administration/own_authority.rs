//! The organisation's own authority: the one in use, and its successors.
//!
//! Each has a row with its wrapped key. The newest issues; all are anchors, so that what the ones before issued stays good.

use std::sync::Arc;
use std::time::SystemTime;

use sealgate_core::address::Domain;
use sealgate_core::keys::{Certificate, Timestamp};

use super::Administration;
use crate::authority::{Authority, KeyAndCertificate};
use crate::certificates;
use crate::database::{Change, Statement};
use crate::error::StoreError;
use crate::key_check;
use crate::learning::unix_now;
use crate::master_key::{MasterKey, Row};
use crate::trust_source::column;

impl Administration<'_> {
    /// The certificate of our own authority.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is none.
    pub async fn authority_certificate(&self) -> Result<Arc<Certificate>, StoreError> {
        Ok(self.authority_row().await?.2)
    }

    /// The certificates of the one in use and of those before it, the newest first.
    ///
    /// # Errors
    /// [`StoreError`] where the database does not answer.
    pub async fn own_authorities(&self) -> Result<Vec<Arc<Certificate>>, StoreError> {
        let select =
            Statement::new("SELECT certificate FROM own_authorities ORDER BY created_at DESC");
        let ders = column(self.database, select, "certificate").await?;
        ders.iter().map(|der| parsed(der)).collect()
    }

    /// The last moment at which an authority issues.
    pub fn issues_until(authority: &Certificate) -> Timestamp {
        Authority::issues_until(authority)
    }

    /// Makes a successor, which issues from now on. Returns its certificate.
    ///
    /// # Errors
    /// [`StoreError`] where the master key or the database cannot be used.
    pub async fn renew_authority(&self, domain: &Domain) -> Result<Arc<Certificate>, StoreError> {
        let made = &Authority::generate(domain, SystemTime::now())?;
        let database = self.database;
        let store = move |master_key: Arc<MasterKey>| async move {
            let mut change = database.begin_change().await?;
            key_check::require(&mut change, &master_key).await?;
            let newest = Statement::new("SELECT MAX(created_at) AS newest FROM own_authorities");
            let rows = change.fetch_all(newest).await?;
            let newest: Option<i64> = match rows.first() {
                Some(row) => row.get("newest").map_err(|error| database.error(&error))?,
                None => None,
            };
            // Whatever the clock said when the last one was made: it is no more the newest.
            let after = newest.unwrap_or_default().saturating_add(1);
            insert(&mut change, &master_key, made, after.max(unix_now())).await?;
            super::revoking::list_successor(&mut change, made).await?;
            change.commit().await
        };
        self.stores.master_key().await?.used(database, store).await?;
        self.stores.changed();
        Ok(Arc::clone(&made.certificate))
    }

    pub(super) async fn load_authority(&self) -> Result<Authority, StoreError> {
        let load = move |master_key: Arc<MasterKey>| async move {
            let (id, wrapped, certificate) = self.authority_row().await?;
            let row = Row { table: TABLE, id: &id, owner: "" };
            let secret = master_key.unwrap(&row, &wrapped)?;
            Authority::load(&secret, &certificate)
        };
        self.stores.master_key().await?.used(self.database, load).await
    }

    /// All of them, ready to sign, the newest first.
    pub(super) async fn open_all(
        change: &mut Change<'_>,
        master_key: &MasterKey,
    ) -> Result<Vec<(Arc<Certificate>, Authority)>, StoreError> {
        let select =
            "SELECT id, wrapped, certificate FROM own_authorities ORDER BY created_at DESC";
        let rows = change.fetch_all(Statement::new(select)).await?;
        let read = |row: &crate::database::Row| {
            Ok((
                row.get::<String>("id")?,
                row.get::<Vec<u8>>("wrapped")?,
                row.get::<Vec<u8>>("certificate")?,
            ))
        };
        let database = change.database();
        let mut all = Vec::new();
        for row in &rows {
            let (id, wrapped, der) =
                read(row).map_err(|error: sqlx::Error| database.error(&error))?;
            let certificate = parsed(&der)?;
            let secret = master_key.unwrap(&Row { table: TABLE, id: &id, owner: "" }, &wrapped)?;
            let authority = Authority::load(&secret, &certificate)?;
            all.push((certificate, authority));
        }
        Ok(all)
    }

    async fn authority_row(&self) -> Result<(String, Vec<u8>, Arc<Certificate>), StoreError> {
        let row = self
            .database
            .fetch_optional(Statement::new(
                "SELECT id, wrapped, certificate FROM own_authorities \
                 ORDER BY created_at DESC LIMIT 1",
            ))
            .await?
            .ok_or_else(|| {
                let what = "this database has no authority; make one with `sealgate init`";
                StoreError::NotFound(what.to_owned())
            })?;
        let failed = |error: sqlx::Error| self.database.error(&error);
        let (id, wrapped) = (row.get("id").map_err(failed)?, row.get("wrapped").map_err(failed)?);
        let der: Vec<u8> = row.get("certificate").map_err(failed)?;
        Ok((id, wrapped, parsed(&der)?))
    }
}

/// Seals an authority that was just made.
pub(super) async fn insert(
    change: &mut Change<'_>,
    master_key: &MasterKey,
    made: &KeyAndCertificate,
    created_at: i64,
) -> Result<(), StoreError> {
    let id = certificates::random_id()?;
    let wrapped = master_key.wrap(&Row { table: TABLE, id: &id, owner: "" }, &made.pkcs8)?;
    let insert = Statement::new(
        "INSERT INTO own_authorities (id, wrapped, certificate, created_at) \
         VALUES ($1, $2, $3, $4)",
    )
    .bind(&id)
    .bind(&wrapped)
    .bind(made.certificate.der())
    .bind(created_at);
    change.execute(insert).await.map(drop)
}

fn parsed(der: &[u8]) -> Result<Arc<Certificate>, StoreError> {
    let corrupt = |_| StoreError::Corrupt { table: TABLE, owner: "us".to_owned() };
    Certificate::from_der(der).map(Arc::new).map_err(corrupt)
}

pub(super) const TABLE: &str = "own_authorities";
