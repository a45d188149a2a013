//! Redis on the command line.

use mpegflow_broker::queue::redis::{RedisConfig, RedisUrl, RedisUrlSource};
use std::path::PathBuf;

/// What keys begin with unless told otherwise.
pub(crate) const PREFIX: &str = "mpegflow";

/// Redis, the index that brokers share. Files are read again for each new connection.
#[derive(Debug, clap::Args)]
pub(crate) struct RedisArgs {
    /// Redis, as redis://[USER@]HOST:PORT, redis+sentinel://[USER@]HOST:PORT,…/MASTER or redis+cluster://[USER@]HOST:PORT,…,
    /// without a password; rediss for TLS. Without it, an index in this process.
    #[arg(long, global = true, value_name = "URL", conflicts_with = "redis_url_file", value_parser = RedisUrl::parse_without_password)]
    redis_url: Option<RedisUrl>,
    /// File with Redis' URL, which may hold a password.
    #[arg(long, global = true, value_name = "FILE")]
    redis_url_file: Option<PathBuf>,
    /// File with Redis' password.
    #[arg(long, global = true, value_name = "FILE")]
    redis_password_file: Option<PathBuf>,
    /// File with the Sentinels' own password.
    #[arg(long, global = true, value_name = "FILE")]
    redis_sentinel_password_file: Option<PathBuf>,
    /// PEM file with the authorities that Redis' certificate is checked against, in place of the machine's.
    #[arg(long, global = true, value_name = "FILE")]
    redis_ca_file: Option<PathBuf>,
    /// What every key begins with, where several installations share a server.
    #[arg(long, global = true, default_value = PREFIX, value_parser = prefix, value_name = "NAME")]
    redis_prefix: String,
}

/// Braces would move a key to another hash slot, and a wildcard would widen an account's rules.
fn prefix(text: &str) -> Result<String, &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("1 to 64 letters, digits, - or _")
    }
}

impl RedisArgs {
    pub(crate) fn config(self) -> anyhow::Result<Option<RedisConfig>> {
        let url = match (self.redis_url, self.redis_url_file) {
            (Some(url), _) => RedisUrlSource::Plain(url),
            (None, Some(file)) => RedisUrlSource::File(file),
            (None, None) => {
                anyhow::ensure!(
                    self.redis_password_file.is_none() && self.redis_ca_file.is_none(),
                    "--redis-password-file and --redis-ca-file need --redis-url or --redis-url-file"
                );
                return Ok(None);
            }
        };
        Ok(Some(RedisConfig {
            password_file: self.redis_password_file,
            sentinel_password_file: self.redis_sentinel_password_file,
            ca_file: self.redis_ca_file,
            prefix: self.redis_prefix,
            ..RedisConfig::new(url)
        }))
    }
}
