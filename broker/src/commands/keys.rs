//! `mpegflow-broker api-key …`.

use anyhow::Context as _;
use clap::Subcommand;
use mpegflow_broker::engine::{Engine, NewKey};
use mpegflow_broker::scopes::Scopes;
use mpegflow_protocol::ids::KeyId;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DAY_S: u64 = 24 * 3_600;

/// See `mpegflow-broker api-key --help`.
#[derive(Debug, Subcommand)]
pub(crate) enum ApiKey {
    /// Make a key, and the tenant where there is none of that name.
    #[command(after_help = "Examples:
  mpegflow-broker api-key create --tenant newsroom --out newsroom.key
  mpegflow-broker api-key create --tenant newsroom --label ci --scope upload --scope submit --expires-days 90")]
    Create {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// What the key is for.
        #[arg(long, default_value = "", value_name = "TEXT")]
        label: String,
        /// What it may do: all, or some of read, upload, submit, delete, webhooks, rules and intake (repeatable).
        #[arg(long, default_value = "all", value_name = "SCOPE")]
        scope: Vec<Scopes>,
        /// Days until it expires; never where it is left out.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3_650))]
        expires_days: Option<u32>,
        /// File to write the key to, mode 0600; standard output where it is left out.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List a tenant's keys: their public parts, what they may do and until when. No secret is kept that could be shown.
    #[command(after_help = "Examples:
  mpegflow-broker api-key list --tenant newsroom")]
    List {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
    },
    /// Make a key like another one, which goes on for a while so that everybody can change over.
    #[command(after_help = "Examples:
  mpegflow-broker api-key rotate --key key_0192f0c1a2b37c4d8e9f001122334455 --overlap-hours 24 --out newsroom.key")]
    Rotate {
        /// The public part of the old one.
        #[arg(long, value_name = "KEY")]
        key: KeyId,
        /// Hours that the old one is still valid.
        #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(0..=2_160))]
        overlap_hours: u32,
        /// File to write the new one to, mode 0600; standard output where it is left out.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Revoke a key, at once.
    #[command(after_help = "Examples:
  mpegflow-broker api-key revoke --key key_0192f0c1a2b37c4d8e9f001122334455")]
    Revoke {
        /// Its public part.
        #[arg(long, value_name = "KEY")]
        key: KeyId,
    },
}

/// Runs the command.
pub(crate) async fn run(command: ApiKey, engine: &Engine) -> anyhow::Result<()> {
    match command {
        ApiKey::Create { tenant, label, scope, expires_days, out } => {
            anyhow::ensure!(
                mpegflow_protocol::text::is_label(&tenant, 128),
                "a tenant's name has 1 to 128 printable characters"
            );
            let tenant = engine.ensure_tenant(&tenant).await?;
            let lives = expires_days.map(|days| u64::from(days).saturating_mul(DAY_S).saturating_mul(1_000));
            let expires_at = lives.map(|ms| engine.now().plus_ms(ms));
            let new = NewKey { tenant, label, scopes: scope.into_iter().collect(), expires_at };
            give(&engine.create_key(&new).await?, out.as_deref())
        }
        ApiKey::List { tenant } => {
            let id = engine
                .store()
                .tenant_named(&tenant)
                .await?
                .with_context(|| format!("there is no tenant `{tenant}`"))?;
            let mut out = std::io::stdout();
            for key in engine.store().api_keys(id).await? {
                let ends = match (key.revoked_at, key.expires_at) {
                    (Some(at), _) => format!("revoked {}", at.rfc3339()),
                    (None, Some(at)) if at <= engine.now() => format!("expired {}", at.rfc3339()),
                    (None, Some(at)) => format!("until {}", at.rfc3339()),
                    (None, None) => "for ever".into(),
                };
                let made = key.created_at.rfc3339();
                writeln!(out, "{}  {}  made {made}, {ends}  {}", key.id, key.scopes, key.label)?;
            }
            Ok(())
        }
        ApiKey::Rotate { key, overlap_hours, out } => {
            let overlap = Duration::from_secs(u64::from(overlap_hours).saturating_mul(3_600));
            give(&engine.rotate_api_key(key, overlap).await?, out.as_deref())
        }
        ApiKey::Revoke { key } => {
            let revoked = engine.store().revoke_api_key(key, engine.now()).await?;
            anyhow::ensure!(revoked, "there is no such key, or it was revoked before");
            Ok(writeln!(std::io::stdout(), "revoked {key}")?)
        }
    }
}

/// Hands a secret over, once.
fn give(secret: &str, out: Option<&Path>) -> anyhow::Result<()> {
    match out {
        Some(path) => mpegflow_broker::ca::write_private(path, format!("{secret}\n").as_bytes())
            .with_context(|| format!("cannot write {}", path.display())),
        None => Ok(writeln!(std::io::stdout(), "{secret}")?),
    }
}
