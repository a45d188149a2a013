//! The index in Redis: one for all brokers.
//!
//! **Keys.** A pool's keys begin with `{PREFIX:POOL}:`, so that they share a hash slot of a cluster; [`index.lua`](index.lua)
//! says what each holds. `PREFIX:pools` is the set of pools. `{PREFIX:POOL}:depth` is a hash with an entry for every task that
//! waits or runs: KEDA's redis trigger reads its length (it asks for the type first and takes `HLEN` of a hash), and
//! [`keda_user`] is the account that can do no more than that.
//!
//! **Calls.** One script does every operation, whole or not at all, over keys that are all passed to it. It is called by its
//! digest and loaded where the server does not know it. What many callers take or end at about the same time is one call.
//!
//! **Loss.** Nothing here is the truth. `{PREFIX:POOL}:meta` has a mark that says that everything was put in; after FLUSHALL, or
//! on a server that is new, it is missing, and the leader puts everything in again. What a failover loses of the last writes
//! is found by the comparison with the store that comes every few seconds anyway. Evicting would lose more, silently: the
//! server's `maxmemory-policy` has to be `noeviction`.

mod config;
mod link;
mod script;
mod together;
mod url;
mod wake;

pub use config::{RedisConfig, RedisUrlSource};
pub use url::{RedisUrl, RedisUrlError};

use super::{Indexed, Queue, QueueError, RunningTask, Take};
use crate::batch::Batcher;
use crate::model::{ReadyTask, Time};
use async_trait::async_trait;
use link::Link;
use mpegflow_protocol::ids::{PoolName, TaskId, TenantId};
use redis::{FromRedisValue, ScriptInvocation};
use script::Pools;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use together::{Ended, Ends, MOST, TakeAsk, Takes};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Tasks in one call: a script holds up everybody else's.
const BATCH: usize = 256;
/// Keys of a pool, in the order in which the script takes them.
const KEYS: [&str; 9] = ["depth", "ready", "later", "later_of", "active", "idle", "costs", "weights", "meta"];

/// The ACL rules (as for `ACL SETUSER NAME …`) of an account that can read the depth of a pool and do nothing else. KEDA reads
/// it by a script, which Redis lets do what its caller may. Whoever steals the password learns how long a queue is.
pub fn keda_user(prefix: &str, pool: &PoolName, password: &str) -> Vec<String> {
    let mut rules: Vec<String> =
        ["reset", "on"].map(str::to_owned).into_iter().chain([format!(">{password}")]).collect();
    // Not %R~: EVAL wants a key for writing too. No command here writes, and a script may run no others. LLEN is what KEDA takes of
    // a key that is not there.
    rules.push(format!("~{}", key(prefix, pool, "depth")));
    // What its library says when it connects. Not CLIENT SETINFO, which Redis 7.0 does not know: libraries go on without.
    rules.extend(
        [
            "-@all",
            "+type",
            "+hlen",
            "+llen",
            "+eval",
            "+evalsha",
            "+ping",
            "+hello",
            "+auth",
            "+client|setname",
            "+cluster|slots",
            "+cluster|shards",
            "+command",
        ]
        .map(str::to_owned),
    );
    rules
}

/// The ACL rules of the account that brokers use.
pub fn broker_user(prefix: &str, password: &str) -> Vec<String> {
    let mut rules = vec!["reset".into(), "on".into(), format!(">{password}")];
    rules.extend([format!("~{prefix}:pools"), format!("~{{{prefix}:*"), format!("&{prefix}:wake")]);
    rules.extend(
        [
            "-@all",
            "+@hash",
            "+@sortedset",
            "+@set",
            "+@scripting",
            "-script|flush",
            "-script|kill",
            "+del",
            "+publish",
            "+subscribe",
            "+unsubscribe",
            "+ping",
            "+hello",
            "+auth",
            "+role",
            "+select",
            "+client|setname",
            "+cluster|slots",
            "+cluster|shards",
            "+cluster|nodes",
            "+readonly",
            "+asking",
        ]
        .map(str::to_owned),
    );
    rules
}

fn key(prefix: &str, pool: &PoolName, name: &str) -> String {
    format!("{{{prefix}:{pool}}}:{name}")
}

/// A queue in Redis.
#[derive(Debug)]
pub struct RedisQueue {
    pools: Arc<Pools>,
    takes: Batcher<Takes>,
    ends: Batcher<Ends>,
    version: Arc<watch::Sender<u64>>,
    /// Pools that this process has put something into, which are in the set of pools.
    known: Mutex<BTreeSet<PoolName>>,
    _listener: AbortOnDropHandle<()>,
}

impl RedisQueue {
    /// A queue that connects when it is first asked, and again whenever it has to. Needs a runtime.
    pub fn new(config: RedisConfig) -> Self {
        let prefix = config.prefix.clone();
        let link = Arc::new(Link::new(config));
        let pools = Arc::new(Pools::new(Arc::clone(&link), prefix));
        let version = Arc::new(watch::channel(0).0);
        let listener = wake::listen(Arc::downgrade(&link), pools.channel.clone(), Arc::clone(&version));
        Self {
            takes: Batcher::start(Takes(Arc::clone(&pools)), 1, MOST),
            ends: Batcher::start(Ends(Arc::clone(&pools)), 1, MOST),
            pools,
            version,
            known: Mutex::default(),
            _listener: AbortOnDropHandle::new(tokio::spawn(listener)),
        }
    }

    fn invocation(&self, pool: &PoolName, op: &str, now: Time) -> ScriptInvocation<'_> {
        self.pools.invocation(pool, op, now)
    }

    async fn run<T: FromRedisValue>(&self, invocation: &ScriptInvocation<'_>) -> Result<T, QueueError> {
        self.pools.run(invocation).await
    }

    fn link(&self) -> &Link {
        &self.pools.link
    }

    fn pools_key(&self) -> String {
        format!("{}:pools", self.pools.prefix)
    }

    /// Sees to it that the pool is in the set of pools.
    async fn know(&self, pool: &PoolName, again: bool) -> Result<(), QueueError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !again && known().contains(pool) {
            return Ok(());
        }
        let mut add = redis::cmd("SADD");
        add.arg(self.pools_key()).arg(pool.as_str());
        let _: i64 = self.link().call(async |c| add.query_async(c).await).await?;
        known().insert(pool.clone());
        Ok(())
    }

    /// The pools that any broker has put something into.
    async fn pools(&self) -> Result<BTreeSet<PoolName>, QueueError> {
        let mut members = redis::cmd("SMEMBERS");
        members.arg(self.pools_key());
        let names: Vec<String> = self.link().call(async |c| members.query_async(c).await).await?;
        let mut pools = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        pools.extend(names.iter().filter_map(|name| name.parse().ok()));
        Ok(pools)
    }

    async fn add(&self, op: &str, tasks: &[ReadyTask], now: Time) -> Result<(), QueueError> {
        for (pool, tasks) in by_pool(tasks, |task| &task.pool) {
            self.know(pool, op != "offer").await?;
            for batch in tasks.chunks(BATCH) {
                let mut invocation = self.invocation(pool, op, now);
                batch.iter().for_each(|task| offer_args(&mut invocation, task));
                let _: redis::Value = self.run(&invocation).await?;
            }
        }
        Ok(())
    }
}

fn offer_args(invocation: &mut ScriptInvocation<'_>, task: &ReadyTask) {
    invocation
        .arg(task.task.to_string())
        .arg(task.tenant.to_string())
        .arg(task.priority.min(9))
        .arg(task.not_before.0);
}

fn by_pool<T>(items: &[T], pool: impl Fn(&T) -> &PoolName) -> BTreeMap<&PoolName, Vec<&T>> {
    let mut pools: BTreeMap<_, Vec<&T>> = BTreeMap::new();
    for item in items {
        pools.entry(pool(item)).or_default().push(item);
    }
    pools
}

/// When a task was taken, of its record in `depth`.
fn taken_at(record: &str) -> Option<Time> {
    record.strip_prefix("r|")?.split('|').nth(1)?.parse().ok().map(Time)
}

/// What `take` answers. Whoever else writes into these keys may put anything there; what cannot be read is an error.
fn taken(pool: &PoolName, answer: &[Option<String>]) -> Option<Take> {
    let text = |at: usize| answer.get(at).and_then(Option::as_deref);
    // A score may come as 1.7e12.
    #[allow(clippy::cast_possible_truncation, reason = "milliseconds since 1970 are far below 2^53")]
    let time = |at: usize| text(at)?.parse::<f64>().ok().map(|ms| Time(ms as i64));
    match text(0)? {
        "task" => Some(Take::Task(ReadyTask {
            task: text(1)?.parse().ok()?,
            tenant: text(2)?.parse().ok()?,
            pool: pool.clone(),
            priority: text(3)?.parse().ok()?,
            not_before: time(4)?,
        })),
        "other" => Some(Take::OtherTenant),
        "empty" => Some(Take::Empty(time(1))),
        _ => None,
    }
}

#[async_trait]
impl Queue for RedisQueue {
    async fn offer(&self, tasks: &[ReadyTask], now: Time) -> Result<(), QueueError> {
        self.add("offer", tasks, now).await
    }

    async fn take(&self, pool: &PoolName, tenant: Option<TenantId>, now: Time) -> Result<Take, QueueError> {
        self.takes.ask(TakeAsk { pool: pool.clone(), tenant, now }).await.unwrap_or(Err(QueueError::Down))
    }

    async fn settled(
        &self,
        ended: &RunningTask,
        next: Option<&ReadyTask>,
        now: Time,
    ) -> Result<(), QueueError> {
        let here = next.filter(|next| next.pool == ended.pool);
        let ask = Ended { ended: ended.clone(), next: here.cloned(), now };
        self.ends.ask(ask).await.unwrap_or(Err(QueueError::Down))?;
        match next {
            Some(elsewhere) if here.is_none() => self.offer(std::slice::from_ref(elsewhere), now).await,
            _ => Ok(()),
        }
    }

    async fn remove(&self, pool: Option<&PoolName>, tasks: &[TaskId]) -> Result<(), QueueError> {
        let pools = match pool {
            Some(pool) => BTreeSet::from([pool.clone()]),
            None => self.pools().await?,
        };
        for pool in &pools {
            for batch in tasks.chunks(BATCH) {
                let mut invocation = self.invocation(pool, "remove", Time(0));
                batch.iter().for_each(|task| {
                    invocation.arg(task.to_string());
                });
                let _: redis::Value = self.run(&invocation).await?;
            }
        }
        Ok(())
    }

    async fn tasks(&self) -> Result<Vec<Indexed>, QueueError> {
        // A scan may tell of one twice.
        let mut found = BTreeMap::new();
        for pool in self.pools().await? {
            let mut cursor = 0_u64;
            loop {
                let mut scan = redis::cmd("HSCAN");
                scan.arg(self.pools.key(&pool, "depth")).arg(cursor).arg("COUNT").arg(1_000);
                let (next, entries): (u64, Vec<(String, String)>) =
                    self.link().call(async |c| scan.query_async(c).await).await?;
                for (id, record) in &entries {
                    if let Ok(task) = id.parse() {
                        let indexed = Indexed { pool: pool.clone(), task, taken: taken_at(record) };
                        found.insert((pool.clone(), task), indexed);
                    }
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(found.into_values().collect())
    }

    async fn restore(
        &self,
        waiting: &[ReadyTask],
        running: &[RunningTask],
        now: Time,
    ) -> Result<(), QueueError> {
        self.add("restore", waiting, now).await?;
        for (pool, tasks) in by_pool(running, |task| &task.pool) {
            self.know(pool, true).await?;
            for batch in tasks.chunks(BATCH) {
                let mut invocation = self.invocation(pool, "restore-running", now);
                batch.iter().for_each(|task| {
                    invocation.arg(task.task.to_string()).arg(task.tenant.to_string());
                });
                let _: redis::Value = self.run(&invocation).await?;
            }
        }
        Ok(())
    }

    async fn weigh(&self, pool: &PoolName, weights: &[(TenantId, u32)]) -> Result<(), QueueError> {
        let mut invocation = self.invocation(pool, "weigh", Time(0));
        for (tenant, weight) in weights {
            invocation.arg(tenant.to_string()).arg((*weight).max(1));
        }
        self.run::<redis::Value>(&invocation).await.map(drop)
    }

    async fn is_whole(&self) -> Result<bool, QueueError> {
        for pool in self.pools().await? {
            let mut get = redis::cmd("HGET");
            get.arg(self.pools.key(&pool, "meta")).arg("whole");
            let whole: Option<String> = self.link().call(async |c| get.query_async(c).await).await?;
            if whole.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn mark_whole(&self) -> Result<(), QueueError> {
        let mut pools = self.pools().await?;
        // Its first task is not taken for the sign of a loss.
        pools.insert(PoolName::default());
        for pool in pools {
            self.know(&pool, true).await?;
            let mut set = redis::cmd("HSET");
            set.arg(self.pools.key(&pool, "meta")).arg("whole").arg(1);
            let _: i64 = self.link().call(async |c| set.query_async(c).await).await?;
        }
        Ok(())
    }

    async fn depth(&self) -> Result<Vec<(PoolName, u64)>, QueueError> {
        let mut depths = Vec::new();
        for pool in self.pools().await? {
            let mut len = redis::cmd("HLEN");
            len.arg(self.pools.key(&pool, "depth"));
            depths.push((pool, self.link().call(async |c| len.query_async(c).await).await?));
        }
        Ok(depths)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}
