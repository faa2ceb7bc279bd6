//! What the administrator does with the stores: everything that writes, and what lists.

use crate::database::Database;
use crate::master_key::MasterKey;
use crate::stores::Stores;

/// The administrator's side of [`Stores`].
#[derive(Clone, Copy, Debug)]
pub struct Administration<'a> {
    stores: &'a Stores,
    database: &'a Database,
    master_key: &'a MasterKey,
}

impl<'a> Administration<'a> {
    pub(crate) fn new(stores: &'a Stores, database: &'a Database, master_key: &'a MasterKey) -> Self {
        Self { stores, database, master_key }
    }
}
