//! Correspondents' certificates and what their software reads, as rows of the database.
//!
//! Only pinned rows answer look-ups. What mail teaches goes to candidates, which never displace anything, and to
//! capabilities, where what was signed earlier never overwrites what was signed later.

use std::sync::Arc;

use sealgate_core::address::Address;
use sealgate_core::keys::{Capabilities, Certificate, PublicKey};

use crate::certificates;
use crate::database::{Database, Row, Statement};
use crate::error::StoreError;
use crate::public_key_store::{MailboxAndDomain, PublicKeyEntry, PublicKeyState};

/// Pinned certificates of an address, and of its domain.
pub(crate) async fn keys_for(
    database: &Database,
    address: &Address,
) -> Result<MailboxAndDomain, StoreError> {
    let mailbox = address.lookup_key();
    let entries = pinned(database, &mailbox, &format!("@{}", address.domain())).await?;
    let learned = match entries.is_empty() {
        true => None,
        false => capabilities_of(database, &mailbox).await?,
    };
    let mut found = MailboxAndDomain::default();
    for entry in entries {
        let is_own = entry.owner == mailbox;
        let key = PublicKey {
            certificate: entry.certificate,
            intermediates: entry.intermediates,
            capabilities: learned.map(|(capabilities, _)| capabilities),
            pinned: true,
            of_domain: !is_own,
        };
        if is_own { &mut found.mailbox } else { &mut found.domain }.push(key);
    }
    Ok(found)
}

/// What an address's software reads, as far as its mail has told.
pub(crate) async fn learned(
    database: &Database,
    address: &Address,
) -> Result<Option<Capabilities>, StoreError> {
    let known = capabilities_of(database, &address.lookup_key()).await?;
    Ok(known.map(|(capabilities, _)| capabilities))
}

/// All certificates, or those of one owner; pinned before candidates.
pub(crate) async fn list(
    database: &Database,
    owner: Option<&str>,
) -> Result<Vec<PublicKeyEntry>, StoreError> {
    let select = Statement::new(
        "SELECT k.owner, k.state, k.certificate, k.intermediates, c.flags FROM public_keys k \
         LEFT JOIN capabilities c ON c.owner = k.owner \
         WHERE $1 = '' OR k.owner = $1 \
         ORDER BY k.owner, k.state DESC, k.not_before DESC, k.sha256",
    );
    let rows = database.fetch_all(select.bind(owner.unwrap_or_default())).await?;
    rows.iter().map(|row| entry(database, row)).collect()
}

/// A certificate to be stored.
pub(crate) struct NewPublicKey<'a> {
    /// Address or domain, as a look-up key.
    pub(crate) owner: &'a str,
    pub(crate) certificate: &'a Certificate,
    pub(crate) intermediates: &'a [Arc<Certificate>],
}

/// Pins certificates, all or none; a candidate that is imported becomes pinned.
pub(crate) async fn pin(
    database: &Database,
    keys: &[NewPublicKey<'_>],
    now: i64,
) -> Result<(), StoreError> {
    let mut change = database.begin_change().await?;
    for key in keys {
        let (sha256, intermediates) = (
            key.certificate.fingerprint().to_string(),
            certificates::concatenate(key.intermediates),
        );
        let insert = Statement::new(
            "INSERT INTO public_keys (owner, sha256, state, certificate, intermediates, \
             not_before, not_after, created_at) VALUES ($1, $2, 'pinned', $3, $4, $5, $6, $7) \
             ON CONFLICT (owner, sha256) DO UPDATE SET state = 'pinned', \
             intermediates = excluded.intermediates",
        )
        .bind(key.owner)
        .bind(&sha256)
        .bind(key.certificate.der())
        .bind(&intermediates)
        .bind(key.certificate.not_before().0)
        .bind(key.certificate.not_after().0)
        .bind(now);
        change.execute(insert).await?;
    }
    change.commit().await
}

/// Turns the candidates of an owner into pinned certificates, or the one with this fingerprint; says how many.
pub(crate) async fn accept(
    database: &Database,
    owner: &str,
    sha256: Option<&str>,
) -> Result<u64, StoreError> {
    let mut change = database.begin_change().await?;
    let update = Statement::new(
        "UPDATE public_keys SET state = 'pinned' \
         WHERE owner = $1 AND state = 'candidate' AND ($2 = '' OR sha256 = $2)",
    )
    .bind(owner)
    .bind(sha256.unwrap_or_default());
    let accepted = change.execute(update).await?;
    change.commit().await?;
    Ok(accepted)
}

/// Forgets an owner, or the one certificate of his with this fingerprint; says how many certificates there were.
pub(crate) async fn remove(
    database: &Database,
    owner: &str,
    sha256: Option<&str>,
) -> Result<u64, StoreError> {
    let mut change = database.begin_change().await?;
    let certificates = "DELETE FROM public_keys WHERE owner = $1 AND ($2 = '' OR sha256 = $2)";
    let certificates = Statement::new(certificates).bind(owner).bind(sha256.unwrap_or_default());
    let removed = change.execute(certificates).await?;
    // What his software reads goes with the last of them.
    let capabilities = "DELETE FROM capabilities WHERE owner = $1 \
                        AND NOT EXISTS (SELECT 1 FROM public_keys WHERE owner = $1)";
    change.execute(Statement::new(capabilities).bind(owner)).await?;
    change.commit().await?;
    Ok(removed)
}

/// Stores a learned certificate as a candidate, where it is new and the owner has not too many. Answers do not depend
/// on candidates, so nothing cached is dropped.
pub(crate) async fn learn_candidate(
    database: &Database,
    key: &NewPublicKey<'_>,
    now: i64,
) -> Result<(), StoreError> {
    let sha256 = key.certificate.fingerprint().to_string();
    let intermediates = certificates::concatenate(key.intermediates);
    let insert = Statement::new(
        "INSERT INTO public_keys (owner, sha256, state, certificate, intermediates, \
         not_before, not_after, created_at) \
         SELECT $1, $2, 'candidate', $3, $4, $5, $6, $7 WHERE (SELECT COUNT(*) FROM public_keys \
         WHERE owner = $1 AND state = 'candidate') < $8 ON CONFLICT (owner, sha256) DO NOTHING",
    )
    .bind(key.owner)
    .bind(&sha256)
    .bind(key.certificate.der())
    .bind(&intermediates)
    .bind(key.certificate.not_before().0)
    .bind(key.certificate.not_after().0)
    .bind(now)
    .bind(CANDIDATES_PER_OWNER_MAX);
    database.execute(insert).await?;
    Ok(())
}

/// Stores what a correspondent's software reads, unless something signed later is known. Says whether answers change by
/// it: they do where the correspondent has a certificate in use and reads something else than before.
pub(crate) async fn learn_capabilities(
    database: &Database,
    address: &Address,
    capabilities: Capabilities,
    signed_at: i64,
) -> Result<bool, StoreError> {
    let owner = address.lookup_key();
    let known = capabilities_of(database, &owner).await?;
    if known.is_some_and(|(_, known_at)| known_at >= signed_at) {
        return Ok(false);
    }
    let upsert = Statement::new(
        "INSERT INTO capabilities (owner, flags, signed_at) VALUES ($1, $2, $3) \
         ON CONFLICT (owner) DO UPDATE SET flags = excluded.flags, signed_at = excluded.signed_at \
         WHERE capabilities.signed_at < excluded.signed_at",
    )
    .bind(&owner)
    .bind(to_flags(capabilities))
    .bind(signed_at);
    let same = known.is_some_and(|(before, _)| before == capabilities);
    if same || keys_for(database, address).await?.is_empty() {
        database.execute(upsert).await?;
        return Ok(false);
    }
    let mut change = database.begin_change().await?;
    change.execute(upsert).await?;
    change.commit().await?;
    Ok(true)
}

async fn pinned(
    database: &Database,
    mailbox: &str,
    domain: &str,
) -> Result<Vec<PublicKeyEntry>, StoreError> {
    let select = Statement::new(
        "SELECT owner, state, certificate, intermediates, NULL AS flags FROM public_keys \
         WHERE (owner = $1 OR owner = $2) AND state = 'pinned' ORDER BY not_before DESC, sha256",
    );
    let rows = database.fetch_all(select.bind(mailbox).bind(domain)).await?;
    rows.iter().map(|row| entry(database, row)).collect()
}

async fn capabilities_of(
    database: &Database,
    owner: &str,
) -> Result<Option<(Capabilities, i64)>, StoreError> {
    let failed = |error: sqlx::Error| database.error(&error);
    let select = Statement::new("SELECT flags, signed_at FROM capabilities WHERE owner = $1");
    let Some(row) = database.fetch_optional(select.bind(owner)).await? else { return Ok(None) };
    let (flags, signed_at) =
        (row.get("flags").map_err(failed)?, row.get("signed_at").map_err(failed)?);
    Ok(Some((from_flags(flags), signed_at)))
}

fn entry(database: &Database, row: &Row) -> Result<PublicKeyEntry, StoreError> {
    let failed = |error: sqlx::Error| database.error(&error);
    let owner: String = row.get("owner").map_err(failed)?;
    let corrupt = || StoreError::Corrupt { table: "public_keys", owner: owner.clone() };
    let state: String = row.get("state").map_err(failed)?;
    let certificate: Vec<u8> = row.get("certificate").map_err(failed)?;
    let intermediates: Vec<u8> = row.get("intermediates").map_err(failed)?;
    let flags: Option<i64> = row.get("flags").map_err(failed)?;
    let pinned = state == PublicKeyState::Pinned.as_str();
    Ok(PublicKeyEntry {
        state: if pinned { PublicKeyState::Pinned } else { PublicKeyState::Candidate },
        certificate: Certificate::from_der(&certificate).map(Arc::new).map_err(|_| corrupt())?,
        intermediates: certificates::split(&intermediates).ok_or_else(corrupt)?,
        capabilities: flags.map(from_flags),
        owner,
    })
}

fn to_flags(capabilities: Capabilities) -> i64 {
    let flag = |set: bool, bit: i64| if set { bit } else { 0 };
    flag(capabilities.aes_128_gcm, AES_128_GCM)
        | flag(capabilities.aes_256_cbc, AES_256_CBC)
        | flag(capabilities.aes_256_gcm, AES_256_GCM)
        | flag(capabilities.rsa_oaep, RSA_OAEP)
}

fn from_flags(flags: i64) -> Capabilities {
    Capabilities {
        aes_128_gcm: flags & AES_128_GCM != 0,
        aes_256_cbc: flags & AES_256_CBC != 0,
        aes_256_gcm: flags & AES_256_GCM != 0,
        rsa_oaep: flags & RSA_OAEP != 0,
    }
}

const AES_128_GCM: i64 = 1;
const AES_256_CBC: i64 = 2;
const AES_256_GCM: i64 = 4;
const RSA_OAEP: i64 = 8;
/// Whoever can sign mail for an address can make new certificates without end.
const CANDIDATES_PER_OWNER_MAX: i64 = 16;
