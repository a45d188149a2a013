//! The script that does every operation, and the keys that it gets.

use super::KEYS;
use super::link::Link;
use crate::model::Time;
use crate::queue::QueueError;
use mpegflow_protocol::ids::PoolName;
use redis::{FromRedisValue, Script, ScriptInvocation};

/// The pools' keys on one server, and the script.
#[derive(Debug)]
pub(super) struct Pools {
    pub(super) link: std::sync::Arc<Link>,
    pub(super) prefix: String,
    pub(super) channel: String,
    script: Script,
}

impl Pools {
    pub(super) fn new(link: std::sync::Arc<Link>, prefix: String) -> Self {
        let channel = format!("{prefix}:wake");
        Self { link, channel, prefix, script: Script::new(include_str!("index.lua")) }
    }

    pub(super) fn key(&self, pool: &PoolName, name: &str) -> String {
        super::key(&self.prefix, pool, name)
    }

    pub(super) fn invocation(&self, pool: &PoolName, op: &str, now: Time) -> ScriptInvocation<'_> {
        let mut invocation = self.script.prepare_invoke();
        for name in KEYS {
            invocation.key(self.key(pool, name));
        }
        invocation.arg(op).arg(now.0).arg(&self.channel);
        invocation
    }

    pub(super) async fn run<T: FromRedisValue>(
        &self,
        invocation: &ScriptInvocation<'_>,
    ) -> Result<T, QueueError> {
        self.link.run(invocation).await
    }
}
