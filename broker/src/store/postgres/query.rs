//! One statement, and how long its answer is waited for.
//!
//! A server that is gone without a word (its machine lost power, a firewall forgot the connection) leaves a statement without an answer
//! until the kernel gives the connection up, which takes it a quarter of an hour. Leases, renewals and the leader's work would
//! wait as long, while a new connection would reach the server that has taken over.

use sqlx::postgres::{PgArguments, PgQueryResult, PgRow};
use sqlx::query::Query as Inner;
use sqlx::{Encode, PgConnection, Postgres, Type};
use std::future::Future;
use std::io;
use std::time::Duration;

/// For the answer to a statement: longer than any of them takes on a server that is busy.
pub(super) const ANSWER: Duration = Duration::from_secs(20);
/// For one that touches as much as there is, or waits for another broker's that does.
const PATIENT: Duration = Duration::from_secs(30 * 60);

/// A statement with its arguments.
pub(super) struct Query<'a> {
    query: Inner<'a, Postgres, PgArguments>,
    within: Duration,
}

impl<'a> Query<'a> {
    pub(super) fn new(sql: &'static str, persistent: bool) -> Self {
        Self { query: sqlx::query(sql).persistent(persistent), within: ANSWER }
    }

    /// One that may take long.
    pub(super) const fn patient(mut self) -> Self {
        self.within = PATIENT;
        self
    }

    pub(super) fn bind<'t, T: Encode<'t, Postgres> + Type<Postgres>>(self, value: T) -> Self {
        Self { query: self.query.bind(value), ..self }
    }

    pub(super) async fn execute(self, conn: &mut PgConnection) -> Result<PgQueryResult, sqlx::Error> {
        answered(self.within, self.query.execute(conn)).await
    }

    pub(super) async fn fetch_all(self, conn: &mut PgConnection) -> Result<Vec<PgRow>, sqlx::Error> {
        answered(self.within, self.query.fetch_all(conn)).await
    }

    pub(super) async fn fetch_one(self, conn: &mut PgConnection) -> Result<PgRow, sqlx::Error> {
        answered(self.within, self.query.fetch_one(conn)).await
    }

    pub(super) async fn fetch_optional(self, conn: &mut PgConnection) -> Result<Option<PgRow>, sqlx::Error> {
        answered(self.within, self.query.fetch_optional(conn)).await
    }
}

/// What the server answers, if it does within the time. What it was asked may be done all the same.
pub(super) async fn answered<T>(
    within: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "the database does not answer");
    tokio::time::timeout(within, answer).await.map_err(silent)?
}
