//! What the administrator does with the stores: everything that writes, and what lists.
//!
//! Every change drops what this process has cached and is noticed by others through the database.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use sealgate_core::address::Domain;
use sealgate_core::keys::{Certificate, SoftwareKey, Timestamp};
use sealgate_core::trust::Purpose;

use crate::authority::{Algorithm, Authority, KeyAndCertificate};
use crate::certificates;
use crate::database::{self, Database, DatabaseUrl, Statement, Wiping};
use crate::error::StoreError;
use crate::import::ImportedKey;
use crate::learning::unix_now;
use crate::master_key::MasterKey;
use crate::owner::Owner;
use crate::public_key_store::embedded::NewPublicKey;
use crate::public_key_store::{self, PublicKeyEntry};
use crate::secret_key_store::ending::{EndingKeys, Question};
use crate::secret_key_store::{KeyPurpose, NewSecretKey, SecretKeyEntry};
use crate::secret_source::SecretSource;
use crate::stores::Stores;
use crate::stores::secret_keys::SecretKeys;
use crate::trust_source::{Role, certificates as authorities};

mod moving;
mod own_authority;
mod publishing;
mod revocation;
mod revoking;
mod rotation;

pub use crate::authority::revocation_list::Reason as RevocationReason;
pub use moving::Moved;
pub use revocation::{ListImport, RevocationList};
pub use rotation::{Rotation, prepare_master_key, rotate_master_key};

/// The administrator's side of [`Stores`].
#[derive(Clone, Copy, Debug)]
pub struct Administration<'a> {
    stores: &'a Stores,
    database: &'a Database,
}

/// Makes master key, database and the organisation's own authority; none of the files may exist, and none is left where this
/// fails. Returns the authority's certificate.
///
/// # Errors
/// [`StoreError::Exists`] where one of them is there, else what went wrong.
pub async fn establish(
    master_key: &Path,
    database: &DatabaseUrl,
    domain: &Domain,
) -> Result<Arc<Certificate>, StoreError> {
    if master_key.exists() {
        let what = format!("{}: exists already and is left alone", master_key.display());
        return Err(StoreError::Exists(what));
    }
    let (url, path) = (database, master_key);
    let made = Authority::generate(domain, SystemTime::now())?;
    let master_key = MasterKey::create(path)?;
    let established = establish_at(url, &master_key, &made).await;
    if established.is_err() {
        // Nothing is sealed under it.
        let removed = std::fs::remove_file(path);
        removed.map_err(|error| SecretSource::File(path.to_owned()).error(&error.to_string()))?;
    }
    established.map(|()| made.certificate)
}

/// Makes the database with the authority in it.
async fn establish_at(
    url: &DatabaseUrl,
    master_key: &MasterKey,
    made: &KeyAndCertificate,
) -> Result<(), StoreError> {
    let database = Database::create(url).await?;
    let established = establish_in(&database, master_key, made).await;
    database.close().await;
    match established {
        Ok(true) => Ok(()),
        // Another `init` was first.
        Ok(false) => Err(database::taken(url)),
        Err(error) => {
            database::remove_new(url);
            Err(error)
        }
    }
}

/// Seals the authority in an empty database; says whether it was empty. The change keeps all others out: of two at once
/// the second finds what the first has written.
async fn establish_in(
    database: &Database,
    master_key: &MasterKey,
    made: &KeyAndCertificate,
) -> Result<bool, StoreError> {
    let mut change = database.begin_change().await?;
    if !crate::key_check::establish(&mut change, master_key).await? {
        return Ok(false);
    }
    own_authority::insert(&mut change, master_key, made, unix_now()).await?;
    change.commit().await?;
    Ok(true)
}

impl<'a> Administration<'a> {
    pub(crate) fn new(stores: &'a Stores, database: &'a Database) -> Self {
        Self { stores, database }
    }

    /// Makes a signing and an encryption key with certificates of our own authority.
    ///
    /// # Errors
    /// [`StoreError`] where there is no authority, or the database refuses.
    pub async fn generate_secret_keys(
        &self,
        owner: &Owner,
        algorithm: Algorithm,
    ) -> Result<Vec<Arc<Certificate>>, StoreError> {
        let authority = self.load_authority().await?;
        let made = authority.issue(owner, algorithm, SystemTime::now())?;
        let new = |key: KeyAndCertificate| {
            Ok(NewSecretKey {
                owner: owner.lookup_key(),
                // As for one from elsewhere: an odd address may have no form that certificates name it in.
                purpose: purpose_for(owner, &key.certificate)?,
                pkcs8: key.pkcs8,
                certificate: key.certificate,
                chain: Vec::new(),
            })
        };
        let keys = made.into_iter().map(new).collect::<Result<Vec<_>, StoreError>>()?;
        self.insert_secret_keys(keys).await
    }

    /// Stores keys from elsewhere.
    ///
    /// # Errors
    /// [`StoreError::Input`] where a certificate is for another address or for no mail, [`StoreError::Exists`] where
    /// nothing is new: neither a key, nor, in the embedded store, the chain of one.
    pub async fn import_secret_keys(
        &self,
        owner: &Owner,
        keys: Vec<ImportedKey>,
    ) -> Result<Vec<Arc<Certificate>>, StoreError> {
        let mut new = Vec::new();
        for key in keys {
            let purpose = purpose_for(owner, &key.certificate)?;
            require_domain(owner, &key.certificate)?;
            new.push(NewSecretKey {
                owner: owner.lookup_key(),
                purpose,
                pkcs8: key.pkcs8,
                certificate: key.certificate,
                chain: key.chain,
            });
        }
        self.insert_secret_keys(new).await
    }

    /// Whether the database is whole.
    ///
    /// # Errors
    /// [`StoreError::Database`] where it is not, or does not answer.
    pub async fn check_database(&self) -> Result<(), StoreError> {
        self.database.check().await
    }

    /// Copies an SQLite database into a new file, also while others use it. The master key is not in it.
    ///
    /// # Errors
    /// [`StoreError::Input`] for a server's database, [`StoreError::Exists`] where the file is there, or
    /// [`StoreError::Database`].
    pub async fn back_up(&self, to: &Path) -> Result<(), StoreError> {
        self.database.back_up(to).await
    }

    /// All secret keys, or those of one owner. What a revocation list names is not active, as what was revoked at its store.
    ///
    /// # Errors
    /// [`StoreError`] where the database does not answer, or a revocation list cannot be read.
    pub async fn secret_keys(
        &self,
        owner: Option<&Owner>,
    ) -> Result<Vec<SecretKeyEntry>, StoreError> {
        let owner = owner.map(Owner::lookup_key);
        let mut entries = self.stores.secret_keys().list(self.database, owner).await?;
        let trust = self.stores.trust().await?;
        let now = Timestamp(unix_now());
        for entry in &mut entries {
            let SecretKeyEntry { certificate, chain, .. } = &*entry;
            // Of a certificate that was revoked usage is not asked.
            entry.is_active &= !trust.is_revoked(certificate, chain, Purpose::Sign, now);
        }
        Ok(entries)
    }

    /// Of our own keys in use the certificates that end first, at most so many, and how many end before `soon`, and before `now`.
    ///
    /// # Errors
    /// [`StoreError`] where the database, or the store, does not answer.
    pub async fn ending_secret_keys(
        &self,
        now: Timestamp,
        soon: Timestamp,
        named_max: usize,
    ) -> Result<EndingKeys, StoreError> {
        let question = Question { now, soon, named_max };
        self.stores.secret_keys().ending(self.database, question).await
    }

    /// Removes all secret keys of an owner. Mail that was encrypted to them stays unreadable.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is none.
    pub async fn remove_secret_keys(&self, owner: &Owner) -> Result<u64, StoreError> {
        let removed = self.stores.secret_keys().remove(self.database, owner.lookup_key()).await?;
        self.stores.changed();
        found(removed, || format!("{owner}: no secret key; see `sealgate secret-key list`"))
    }

    /// Takes secret keys that were removed or moved out of the database's files. What cannot be done now is said in one line.
    pub async fn wipe_removed_keys(&self) -> Option<String> {
        self.database.wipe(Wiping::Removed).await
    }

    /// Pins a correspondent's certificate for an owner, with those of the intermediates that may have issued it.
    ///
    /// # Errors
    /// [`StoreError::Input`] where the certificate is for no mail. One that cannot be encrypted to verifies signatures.
    pub async fn import_public_key(
        &self,
        owner: &Owner,
        certificate: &Certificate,
        intermediates: &[Arc<Certificate>],
    ) -> Result<(), StoreError> {
        if !certificate.is_for_mail() {
            let what = format!("{owner}: the certificate's extended key usage excludes mail");
            return Err(StoreError::Input(what));
        }
        let owner = owner.lookup_key();
        let intermediates = &certificates::issuers(certificate, intermediates);
        let key = NewPublicKey { owner: &owner, certificate, intermediates };
        public_key_store::embedded::pin(self.database, &[key], unix_now()).await?;
        self.stores.changed();
        Ok(())
    }

    /// All certificates of correspondents, or those of one owner, candidates too.
    ///
    /// # Errors
    /// [`StoreError`] where the database does not answer.
    pub async fn public_keys(
        &self,
        owner: Option<&Owner>,
    ) -> Result<Vec<PublicKeyEntry>, StoreError> {
        let owner = owner.map(Owner::lookup_key);
        public_key_store::embedded::list(self.database, owner.as_deref()).await
    }

    /// Pins what was learned from an owner's mail, all of it or the certificate with this fingerprint.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is no such candidate.
    pub async fn accept_public_keys(
        &self,
        owner: &Owner,
        sha256: Option<&str>,
    ) -> Result<u64, StoreError> {
        let key = owner.lookup_key();
        let accepted = public_key_store::embedded::accept(self.database, &key, sha256).await?;
        self.stores.changed();
        found(accepted, || format!("{owner}: no such candidate; see `sealgate public-key list`"))
    }

    /// Forgets a correspondent, or the one certificate of his with this fingerprint.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is no such certificate.
    pub async fn remove_public_keys(
        &self,
        owner: &Owner,
        sha256: Option<&str>,
    ) -> Result<u64, StoreError> {
        let key = owner.lookup_key();
        let removed = public_key_store::embedded::remove(self.database, &key, sha256).await?;
        self.stores.changed();
        found(removed, || format!("{owner}: no such public key; see `sealgate public-key list`"))
    }

    /// Trusts an authority.
    ///
    /// # Errors
    /// [`StoreError::Input`] where the certificate is no authority's.
    pub async fn import_anchor(&self, certificate: &Certificate) -> Result<(), StoreError> {
        if !certificate.may_be_anchor() {
            let what = format!("{}: not an authority's certificate", certificate.subject());
            return Err(StoreError::Input(what));
        }
        let mut change = self.database.begin_change().await?;
        let sha256 = certificate.fingerprint().to_string();
        let insert = Statement::new(
            "INSERT INTO authorities (sha256, role, certificate, created_at) \
             VALUES ($1, $2, $3, $4) ON CONFLICT (sha256) DO UPDATE SET role = excluded.role",
        )
        .bind(&sha256)
        .bind(Role::Anchor.as_str())
        .bind(certificate.der())
        .bind(unix_now());
        change.execute(insert).await?;
        change.commit().await?;
        self.stores.changed();
        Ok(())
    }

    /// The authorities that we trust, our own first.
    ///
    /// # Errors
    /// [`StoreError`] where the database does not answer.
    pub async fn anchors(&self) -> Result<Vec<Arc<Certificate>>, StoreError> {
        authorities(self.database, Role::Anchor).await
    }

    /// Trusts an authority no more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is none with this fingerprint, [`StoreError::Input`] where it is our own.
    pub async fn remove_anchor(&self, sha256: &str) -> Result<(), StoreError> {
        let own = self.own_authorities().await?;
        if own.iter().any(|own| own.fingerprint().to_string() == sha256) {
            let what = format!(
                "{sha256}: our own authority, which is trusted for as long as this database has it: what is not to be \
                 believed of it is revoked with `sealgate ca revoke`"
            );
            return Err(StoreError::Input(what));
        }
        let delete = Statement::new("DELETE FROM authorities WHERE sha256 = $1").bind(sha256);
        let mut change = self.database.begin_change().await?;
        let removed = change.execute(delete).await?;
        change.commit().await?;
        self.stores.changed();
        found(removed, || format!("{sha256}: no such anchor; see `sealgate anchor list`"))?;
        Ok(())
    }

    /// Whether secret keys can be used: every embedded one is opened, a store outside this process is asked. One line
    /// for the administrator.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for the first that cannot, [`StoreError::Unavailable`].
    pub async fn check_secret_keys(&self) -> Result<String, StoreError> {
        if let SecretKeys::Embedded(_) = self.stores.secret_keys() {
            self.load_authority().await?;
        }
        self.stores.secret_keys().check(self.database).await
    }

    async fn insert_secret_keys(
        &self,
        keys: Vec<NewSecretKey>,
    ) -> Result<Vec<Arc<Certificate>>, StoreError> {
        for key in &keys {
            let parsed = SoftwareKey::from_pkcs8(&key.pkcs8);
            let matches = parsed.is_ok_and(|parsed| {
                parsed.public_key_bytes() == key.certificate.public_key_bytes()
            });
            if !matches {
                let what = format!("{}: secret key and certificate do not match", key.owner);
                return Err(StoreError::Input(what));
            }
        }
        let now = unix_now();
        let certificates = keys.iter().map(|key| Arc::clone(&key.certificate)).collect();
        self.stores.secret_keys().insert(self.database, keys, now).await?;
        self.stores.changed();
        Ok(certificates)
    }
}

/// What a certificate is for, if it is for this owner.
pub(crate) fn purpose_for(
    owner: &Owner,
    certificate: &Certificate,
) -> Result<KeyPurpose, StoreError> {
    let refuse = |why: String| Err(StoreError::Input(format!("{owner}: {why}")));
    if let Owner::Mailbox(address) = owner
        && !certificate.names(address)
    {
        return refuse(format!("the certificate is for {}", names_in(certificate)));
    }
    if !certificate.is_for_mail() {
        return refuse("the certificate's extended key usage excludes mail".to_owned());
    }
    match KeyPurpose::of(certificate) {
        Some(purpose) => Ok(purpose),
        None => refuse("the certificate's key usage allows neither signing nor encryption".into()),
    }
}

/// Refuses a domain's new key whose certificate is of another one. Keys that are held already are moved as they are.
fn require_domain(owner: &Owner, certificate: &Certificate) -> Result<(), StoreError> {
    let Owner::Domain(domain) = owner else { return Ok(()) };
    let addresses = certificate.addresses();
    // Of anybody there: RFC 3183 §3.1.1 and §4.1 have names of roles, others a mailbox or, for a whole gateway, none.
    if addresses.is_empty() || addresses.iter().any(|one| one.domain() == domain) {
        return Ok(());
    }
    let names = names_in(certificate);
    Err(StoreError::Input(format!("{owner}: the certificate is for {names}")))
}

fn names_in(certificate: &Certificate) -> String {
    let names: Vec<_> = certificate.addresses().iter().map(ToString::to_string).collect();
    if names.is_empty() { "no address".to_owned() } else { names.join(", ") }
}

fn found(count: u64, what: impl FnOnce() -> String) -> Result<u64, StoreError> {
    if count == 0 { Err(StoreError::NotFound(what())) } else { Ok(count) }
}
