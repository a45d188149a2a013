//! Statements of many callers in one: [`crate::batch`] over a connection.

use super::conn::Connector;
use crate::batch::{Batch, Batcher};
use crate::store::StoreError;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

/// Most calls in one statement: it holds the locks of all of them until it commits.
pub(super) const MOST: usize = 128;

/// A statement that does for many what each of them asks for.
pub(super) trait Statement: Send + Sync + 'static {
    type Ask: Send + Sync + 'static;
    type Answer: Send + 'static;

    /// See [`Batch::keys`].
    fn keys(ask: &Self::Ask) -> impl IntoIterator<Item = u128>;

    /// All or none of them; one answer for each, in their order.
    fn at_once(
        connector: &Arc<Connector>,
        asks: &[Self::Ask],
    ) -> impl Future<Output = Result<Vec<Result<Self::Answer, StoreError>>, StoreError>> + Send;
}

/// A statement of many callers.
pub(super) struct Together<S>(Arc<Connector>, PhantomData<S>);

impl<S: Statement> Together<S> {
    pub(super) fn start(connector: &Arc<Connector>, at_a_time: usize, most: usize) -> Batcher<Self> {
        Batcher::start(Self(Arc::clone(connector), PhantomData), at_a_time, most)
    }
}

/// Asks for one, together with whoever else asks now.
pub(super) async fn ask<S: Statement>(
    batcher: &Batcher<Together<S>>,
    ask: S::Ask,
) -> Result<S::Answer, StoreError> {
    let ended = || StoreError::Database(Box::new(sqlx::Error::PoolClosed));
    batcher.ask(ask).await.ok_or_else(ended)?
}

impl<S: Statement> Batch for Together<S> {
    type Ask = S::Ask;
    type Answer = Result<S::Answer, StoreError>;

    fn keys(ask: &S::Ask) -> impl IntoIterator<Item = u128> {
        S::keys(ask)
    }

    async fn run(&self, asks: Vec<S::Ask>) -> Vec<Self::Answer> {
        match S::at_once(&self.0, &asks).await {
            Ok(answers) => answers,
            // The server refused the statement, and with it nothing was done: one of them must not spoil the others.
            Err(e) if asks.len() > 1 && is_refused(&e) => {
                let mut answers = Vec::with_capacity(asks.len());
                for ask in &asks {
                    let alone = S::at_once(&self.0, std::slice::from_ref(ask)).await;
                    answers
                        .push(alone.and_then(|mut alone| alone.pop().unwrap_or_else(|| Err(unanswered()))));
                }
                answers
            }
            Err(e) => {
                let e = Arc::new(e);
                asks.iter().map(|_| Err(shared(&e))).collect()
            }
        }
    }
}

/// An answer is missing: the statement is wrong.
fn unanswered() -> StoreError {
    StoreError::Row { table: "batch", reason: "no answer".into() }
}

/// Whether the server answered, with an error that may be the fault of one row.
fn is_refused(error: &StoreError) -> bool {
    let StoreError::Database(e) = error else { return false };
    let code = e.downcast_ref::<sqlx::Error>().and_then(|e| e.as_database_error()).and_then(|e| e.code());
    // Not while it shuts down or has no room for us: classes 08, 53, 57 and 58 are the server's own trouble.
    code.is_some_and(|code| !["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)))
}

fn shared(error: &Arc<StoreError>) -> StoreError {
    match **error {
        StoreError::Full => StoreError::Full,
        _ => StoreError::Database(Box::new(Arc::clone(error))),
    }
}
