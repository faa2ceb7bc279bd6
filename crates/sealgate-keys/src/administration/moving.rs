//! `secret-key move`: from the embedded store to one outside this process, a key at a time, so that every key is always
//! in one of the two: it is taken in there, proven there, and only then removed here.

use std::sync::Arc;

use sealgate_core::keys::Certificate;

use super::Administration;
use crate::error::StoreError;
use crate::owner::Owner;
use crate::secret_key_store::{NewSecretKey, RemoteStore, SecretKeyStoreKind, embedded, proof};
use crate::stores::secret_keys::{blocking, remote};

/// A key that was moved.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Whose: an address in lower case, or `@domain`.
    pub owner: String,
    /// Its certificate.
    pub certificate: Arc<Certificate>,
}

impl Administration<'_> {
    /// Moves the embedded keys of one owner, or all, to a store that the configuration describes. `moved` is called after
    /// each; what was moved before an error stays moved, and the same call goes on from there.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is nothing to move, else what the store says.
    pub async fn move_secret_keys(
        &self,
        to: SecretKeyStoreKind,
        owner: Option<&Owner>,
        mut moved: impl FnMut(Moved),
    ) -> Result<u64, StoreError> {
        let store = remote(&self.stores.settings().config, to)?;
        let master_key = self.stores.master_key().await?;
        let owner = owner.map(Owner::lookup_key);
        let ids = embedded::ids(self.database, owner.as_deref()).await?;
        let mut count = 0_u64;
        for id in ids {
            let (database, id) = (self.database, id.as_str());
            let read = move |master_key: Arc<_>| async move {
                embedded::secret(database, &master_key, id).await
            };
            let key = master_key.used(database, read).await?;
            let done =
                Moved { owner: key.owner.clone(), certificate: Arc::clone(&key.certificate) };
            let store = Arc::clone(&store);
            blocking(move || take_in(store.as_ref(), key)).await?;
            embedded::remove_one(database, id).await?;
            self.stores.changed();
            count = count.saturating_add(1);
            moved(done);
        }
        if count == 0 {
            let what = "no embedded secret key to move; see `sealgate secret-key list`";
            return Err(StoreError::NotFound(what.to_owned()));
        }
        Ok(count)
    }
}

/// Takes in a key; one that is there already, from a move that was cut off, is proven to be the same.
fn take_in(store: &dyn RemoteStore, key: NewSecretKey) -> Result<(), StoreError> {
    let one = std::slice::from_ref(&key);
    match store.insert(one) {
        Err(StoreError::Exists(what)) => {
            let found = store.find(&key.owner)?;
            let same = found.iter().find(|found| found.certificate.der() == key.certificate.der());
            let same = same.ok_or(StoreError::Exists(what))?;
            proof::prove(same.secret.as_ref(), &key)
                .map_err(|why| StoreError::Input(format!("{}: {why}", key.owner)))
        }
        other => other,
    }
}
