//! One SQL text and its values, for either database, and the rows that come back.
//!
//! The stores' SQL keeps to what SQLite and PostgreSQL both take: $1 placeholders, ON CONFLICT, text, bytes and 64-bit
//! integers.

use sqlx::postgres::{PgRow, Postgres};
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Decode, Encode, Row as _, Type};

/// A statement with its values bound.
#[derive(Clone, Debug)]
pub(crate) struct Statement<'v> {
    sql: &'static str,
    values: Vec<Value<'v>>,
}

impl<'v> Statement<'v> {
    pub(crate) fn new(sql: &'static str) -> Self {
        Self { sql, values: Vec::new() }
    }

    /// The value of the next placeholder.
    pub(crate) fn bind(mut self, value: impl Into<Value<'v>>) -> Self {
        self.values.push(value.into());
        self
    }

    /// The statement for one of the databases.
    pub(super) fn query<DB>(&self) -> Query<'static, DB, DB::Arguments>
    where
        DB: sqlx::Database,
        for<'t> &'t str: Encode<'t, DB> + Type<DB>,
        for<'t> &'t [u8]: Encode<'t, DB> + Type<DB>,
        for<'t> i64: Encode<'t, DB> + Type<DB>,
    {
        self.values.iter().fold(sqlx::query(self.sql), |query, value| match *value {
            Value::Bytes(bytes) => query.bind(bytes),
            Value::Integer(integer) => query.bind(integer),
            Value::Text(text) => query.bind(text),
        })
    }
}

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'v> {
    Bytes(&'v [u8]),
    Integer(i64),
    Text(&'v str),
}

impl<'v> From<&'v [u8]> for Value<'v> {
    fn from(bytes: &'v [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'v> From<&'v Vec<u8>> for Value<'v> {
    fn from(bytes: &'v Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<i64> for Value<'_> {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(text)
    }
}

impl<'v> From<&'v String> for Value<'v> {
    fn from(text: &'v String) -> Self {
        Self::Text(text)
    }
}

/// A row of either database.
pub(crate) enum Row {
    Postgres(PgRow),
    Sqlite(SqliteRow),
}

impl Row {
    /// The value of a column.
    pub(crate) fn get<T>(&self, column: &str) -> Result<T, sqlx::Error>
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres>,
        T: for<'r> Decode<'r, Sqlite> + Type<Sqlite>,
    {
        match self {
            Self::Postgres(row) => row.try_get(column),
            Self::Sqlite(row) => row.try_get(column),
        }
    }
}
