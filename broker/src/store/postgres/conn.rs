//! Connections: made with the password as its file holds it at that moment, and given out in a way that a transaction-mode
//! pooler can live with.
//!
//! The pool asks the server about every connection that comes back to it, which would double the round trips of single statements.
//! So one that ended its statement well is kept here for the next call, and goes back to the pool only once it lies idle.

use super::query::{ANSWER, Query, answered};
use super::together::MOST;
use super::url::{DatabaseUrl, UrlError};
use crate::store::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, Postgres};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A call that waits this long for a connection is told that the database does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection that lay idle for this long is tried before it is used: a firewall or a failover may have cut it.
const SUSPECT: Duration = Duration::from_secs(5);
/// It has to answer that within this time; then the next one is tried, or a new one made.
const TRIED: Duration = Duration::from_secs(3);
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
                        answered(TRIED, conn.ping()).await?;
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
    pub(super) fn sql<'a>(&self, sql: &'static str) -> Query<'a> {
        Query::new(sql, !self.pooler)
    }

    /// A connection for one statement, or for reads of no common moment.
    pub(super) async fn conn(self: &Arc<Self>) -> Result<Conn, StoreError> {
        // Between parsing a statement and executing it a pooler may switch servers, except within a transaction.
        if self.pooler { self.begin().await } else { Ok(Conn::new(self.acquire().await?, false)) }
    }

    /// A connection within a transaction.
    pub(super) async fn begin(self: &Arc<Self>) -> Result<Conn, StoreError> {
        self.transaction("BEGIN").await
    }

    /// A connection within a transaction that sees one moment and writes nothing.
    pub(super) async fn snapshot(self: &Arc<Self>) -> Result<Conn, StoreError> {
        self.transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    async fn transaction(self: &Arc<Self>, begin: &'static str) -> Result<Conn, StoreError> {
        let mut conn = Conn::new(self.acquire().await?, true);
        answered(ANSWER, conn.execute(begin)).await?;
        Ok(conn)
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
        Ok(Held { spare, _permit: permit, connector: Arc::clone(self) })
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Spare>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last. Those that lay idle go back to the pool, which looks whether they live.
    fn take_spare(&self) -> Option<Spare> {
        let mut spare = self.spare();
        send_home(&mut spare, |conn| !conn.is_fresh());
        spare.pop()
    }

    fn give_back(&self, mut conn: Spare) {
        let mut spare = self.spare();
        conn.used = Instant::now();
        spare.push(conn);
        let closed = self.permits.is_closed();
        send_home(&mut spare, |conn| closed || !conn.is_fresh());
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
        send_home(&mut self.spare(), |_| true);
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

/// A connection in use, with the right to have it. What it did counts after [`Self::done`]; dropped before, a transaction is rolled
/// back.
#[derive(Debug)]
pub(super) struct Conn {
    /// There until it is given back.
    held: Option<Held>,
    transaction: bool,
}

#[derive(Debug)]
struct Held {
    spare: Spare,
    /// Free for others when this goes.
    _permit: OwnedSemaphorePermit,
    connector: Arc<Connector>,
}

const HELD: &str = "a connection is held until it is given back";

impl Conn {
    const fn new(held: Held, transaction: bool) -> Self {
        Self { held: Some(held), transaction }
    }

    pub(super) async fn done(mut self) -> Result<(), StoreError> {
        if self.transaction {
            answered(ANSWER, self.execute("COMMIT")).await?;
        }
        if let Some(Held { spare, _permit, connector }) = self.held.take() {
            connector.give_back(spare);
        }
        Ok(())
    }
}

impl Drop for Conn {
    /// Its last statement did not end well, or nobody waited for it.
    fn drop(&mut self) {
        if let Some(Held { spare, .. }) = self.held.take() {
            go_home(spare.conn, self.transaction);
        }
    }
}

/// Gives those back to the pool.
fn send_home(spare: &mut Vec<Spare>, goes: impl Fn(&Spare) -> bool) {
    spare.extract_if(.., |conn| goes(conn)).for_each(|gone| go_home(gone.conn, false));
}

/// The pool may have it back if it still answers, and only then: the pool itself would ask it, wait without end, and count it all the while.
fn go_home(mut conn: PoolConnection<Postgres>, transaction: bool) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    // Given up in the middle of what follows, it is closed.
    conn.close_on_drop();
    runtime.spawn(tokio::time::timeout(PATIENCE, async move {
        if !transaction || conn.execute("ROLLBACK").await.is_ok() {
            conn.return_to_pool().await;
        }
    }));
}

impl Deref for Conn {
    type Target = PgConnection;

    #[expect(clippy::expect_used, reason = "only `done` and `drop` take it, and both are the end")]
    fn deref(&self) -> &PgConnection {
        &self.held.as_ref().expect(HELD).spare.conn
    }
}

impl DerefMut for Conn {
    #[expect(clippy::expect_used, reason = "only `done` and `drop` take it, and both are the end")]
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.held.as_mut().expect(HELD).spare.conn
    }
}
