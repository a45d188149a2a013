//! Connections: made with the password as its file holds it at that moment, and given out in a way that a transaction-mode
//! pooler can live with.
//!
//! The pool asks the server about every connection that comes back to it, which would double the round trips of single statements.
//! So one that ended its statement well is kept here for the next call, and goes back to the pool only once it lies idle.

use super::together::MOST;
use super::url::{DatabaseUrl, UrlError};
use crate::store::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPoolOptions};
use sqlx::query::Query;
use sqlx::{Connection as _, PgConnection, PgPool, Postgres, Transaction};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A call that waits this long for a connection is told that the database does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection that lay idle for this long is tried before it is used: a firewall or a failover may have cut it.
const SUSPECT: Duration = Duration::from_secs(5);
/// A connection that was not back in the pool for this long goes there, so that the pool can replace it.
const OUT: Duration = Duration::from_secs(60);
/// A connection is replaced after this long: what balances connections over servers then gets its turn.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// Where the URL, and with it perhaps the password, comes from.
#[derive(Debug, Clone)]
pub enum UrlSource {
    /// From the command line or a configuration: it may hold no password.
    Plain(DatabaseUrl),
    /// From a file that may hold a password too. Read again for each new connection.
    File(PathBuf),
}

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// Where it is.
    pub url: UrlSource,
    /// A file with the password and nothing else; read again for each new connection.
    pub password_file: Option<PathBuf>,
    /// Most connections of this process.
    pub connections: u32,
    /// Most leases, or ends of attempts, in one transaction; 1 does each alone.
    pub together: usize,
    /// A folder of migrations beyond this program's own: what the program of a later release has. For tests of upgrades.
    pub later: Option<PathBuf>,
}

impl DatabaseConfig {
    /// From a URL, with 10 connections.
    pub const fn new(url: UrlSource) -> Self {
        Self { url, password_file: None, connections: 10, together: MOST, later: None }
    }

    /// The URL as it is now, with the password as it is now.
    pub(crate) fn read(&self) -> Result<DatabaseUrl, UrlError> {
        let file = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| UrlError::File { path: path.clone(), source })
        };
        let mut url = match &self.url {
            UrlSource::Plain(url) => url.clone(),
            UrlSource::File(path) => DatabaseUrl::parse(file(path)?.trim())?,
        };
        if let Some(path) = &self.password_file {
            // An editor's newline is no part of it.
            url.set_password(file(path)?.trim_end_matches(['\n', '\r']));
        }
        Ok(url)
    }
}

/// The pool, and what a new connection needs.
#[derive(Debug)]
pub(super) struct Connector {
    pool: PgPool,
    config: DatabaseConfig,
    pooler: bool,
    /// One for each connection that may be in use, so that what is spare never keeps anybody from the pool.
    permits: Arc<Semaphore>,
    spare: Mutex<Vec<Spare>>,
}

/// A connection that ended its last statement well.
#[derive(Debug)]
struct Spare {
    conn: PoolConnection<Postgres>,
    /// When it came out of the pool.
    out: Instant,
    /// When it was last used.
    used: Instant,
}

impl Spare {
    fn is_fresh(&self) -> bool {
        self.used.elapsed() < SUSPECT && self.out.elapsed() < OUT
    }
}

impl Connector {
    pub(super) async fn connect(config: DatabaseConfig) -> Result<Arc<Self>, StoreError> {
        let url = config.read().map_err(bad_url)?;
        let pool = PgPoolOptions::new()
            .max_connections(config.connections)
            .acquire_timeout(PATIENCE)
            .max_lifetime(LIFETIME)
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move {
                    if meta.idle_for >= SUSPECT {
                        conn.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(url.options())
            .await?;
        let permits = Arc::new(Semaphore::new(usize::try_from(config.connections).unwrap_or(1)));
        Ok(Arc::new(Self { pool, pooler: url.pooler(), config, permits, spare: Mutex::default() }))
    }

    /// A statement. Through a pooler it is not kept prepared: the next transaction may run on another server's session.
    pub(super) fn sql<'a>(&self, sql: &'static str) -> Query<'a, Postgres, PgArguments> {
        sqlx::query(sql).persistent(!self.pooler)
    }

    /// A connection for one statement, or for reads of no common moment.
    pub(super) async fn conn(self: &Arc<Self>) -> Result<Conn, StoreError> {
        // Between parsing a statement and executing it a pooler may switch servers, except within a transaction.
        if self.pooler { self.begin().await } else { Ok(Conn::Plain(self.acquire().await?)) }
    }

    /// A connection within a transaction.
    pub(super) async fn begin(self: &Arc<Self>) -> Result<Conn, StoreError> {
        self.transaction(None).await
    }

    /// A connection within a transaction that sees one moment and writes nothing.
    pub(super) async fn snapshot(self: &Arc<Self>) -> Result<Conn, StoreError> {
        let begin = sqlx::SqlSafeStr::into_sql_str("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        self.transaction(Some(begin)).await
    }

    async fn transaction(self: &Arc<Self>, begin: Option<sqlx::SqlStr>) -> Result<Conn, StoreError> {
        let Held { spare, permit, .. } = self.acquire().await?;
        Ok(Conn::Transaction(Transaction::begin(spare.conn, begin).await?, permit))
    }

    async fn acquire(self: &Arc<Self>) -> Result<Held, StoreError> {
        let permit = tokio::time::timeout(PATIENCE, Arc::clone(&self.permits).acquire_owned()).await;
        let permit = permit.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let spare = match self.take_spare() {
            Some(spare) => spare,
            None => {
                let now = Instant::now();
                Spare { conn: self.pooled().await?, out: now, used: now }
            }
        };
        Ok(Held { spare, permit, connector: Arc::clone(self) })
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Spare>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last. Those that lay idle go back to the pool, which looks whether they live.
    fn take_spare(&self) -> Option<Spare> {
        let mut spare = self.spare();
        spare.retain(Spare::is_fresh);
        spare.pop()
    }

    fn give_back(&self, mut conn: Spare) {
        let mut spare = self.spare();
        spare.retain(Spare::is_fresh);
        conn.used = Instant::now();
        if conn.is_fresh() && !self.permits.is_closed() {
            spare.push(conn);
        }
    }

    async fn pooled(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        // Without an idle connection a new one is made now.
        if self.pool.num_idle() == 0 && self.pool.size() < self.config.connections {
            self.refresh()?;
        }
        match self.pool.acquire().await {
            // The password was changed after it was read, or the pool made a connection in place of a broken one.
            Err(e) if is_refused(&e) => {
                self.refresh()?;
                Ok(self.pool.acquire().await?)
            }
            other => Ok(other?),
        }
    }

    fn refresh(&self) -> Result<(), StoreError> {
        let url = self.config.read().map_err(bad_url)?;
        self.pool.set_connect_options(url.options());
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.permits.close();
        self.spare().clear();
        self.pool.close().await;
    }
}

fn bad_url(error: UrlError) -> StoreError {
    StoreError::Database(Box::new(error))
}

/// `invalid_password` and `invalid_authorization_specification`.
fn is_refused(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == "28P01" || code == "28000")
}

/// A connection in use. What it did counts after [`Self::done`]; dropped before, a transaction is rolled back.
#[derive(Debug)]
pub(super) enum Conn {
    Plain(Held),
    Transaction(Transaction<'static, Postgres>, OwnedSemaphorePermit),
}

/// A connection that is not in a transaction, with the right to have it.
#[derive(Debug)]
pub(super) struct Held {
    spare: Spare,
    permit: OwnedSemaphorePermit,
    connector: Arc<Connector>,
}

impl Conn {
    pub(super) async fn done(self) -> Result<(), StoreError> {
        match self {
            Self::Plain(Held { spare, permit, connector }) => {
                connector.give_back(spare);
                drop(permit);
                Ok(())
            }
            Self::Transaction(tx, _permit) => Ok(tx.commit().await?),
        }
    }
}

impl Deref for Conn {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Plain(held) => &held.spare.conn,
            Self::Transaction(tx, _) => tx,
        }
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Plain(held) => &mut held.spare.conn,
            Self::Transaction(tx, _) => tx,
        }
    }
}
