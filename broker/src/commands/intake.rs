//! `mpegflow-broker intake …`.

use anyhow::Context as _;
use clap::Subcommand;
use mpegflow_broker::engine::Engine;
use mpegflow_protocol::ids::{RuleId, TenantId};
use mpegflow_protocol::intake::CreateRule;
use mpegflow_protocol::limits::MAX_API_BODY;
use std::io::Write as _;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Intake {
    /// Make a job of each object that arrives in a tenant's own storage. Storage says so by events, which it sends to
    /// `/v1/intake/events` with a key of the scope `intake`; with --poll-seconds the broker looks by itself, also beside events.
    #[command(after_help = "Examples:
  mpegflow-broker api-key create --tenant newsroom --scope intake --out intake.key
  mpegflow-broker intake add --tenant newsroom --prefix incoming/ --suffix .mov --preset web
  mpegflow-broker intake add --tenant newsroom --job job.json --poll-seconds 60 --existing")]
    Add {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// What keys begin with, from the tenant's prefix on.
        #[arg(long, default_value = "", value_name = "PREFIX")]
        prefix: String,
        /// What keys end with.
        #[arg(long, default_value = "", value_name = "SUFFIX")]
        suffix: String,
        /// The preset of each job.
        #[arg(long, value_name = "NAME", required_unless_present = "job", conflicts_with = "job")]
        preset: Option<String>,
        /// Where each job's output is to be found, such as `in/{job}/{name}`.
        #[arg(long, value_name = "PATH", conflicts_with = "job")]
        output_path: Option<String>,
        /// Each job's place among the tenant's: 9 goes first, 0 last.
        #[arg(long, value_name = "NUMBER", conflicts_with = "job")]
        priority: Option<u8>,
        /// File with the job of each object in JSON: a job spec without `input`. In `external_id`, {key} stands for the object's key and
        /// {stem} for its last name without what follows the last dot.
        #[arg(long, value_name = "FILE")]
        job: Option<PathBuf>,
        /// Seconds between two looks at the storage, 10 to 86400.
        #[arg(long, value_name = "SECONDS")]
        poll_seconds: Option<u32>,
        /// Take what was written up to 30 days before, too.
        #[arg(long)]
        existing: bool,
    },
    /// Print a tenant's rules as JSON, each with the last thing that kept an object from becoming a job.
    List {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
    },
    /// Have a rule look at the storage now, once, and try again what was refused: after the rule's trouble is mended.
    Look {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// The rule.
        #[arg(long, value_name = "RULE")]
        rule: RuleId,
    },
    /// Remove a rule. Jobs that it made stay.
    Remove {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// The rule.
        #[arg(long, value_name = "RULE")]
        rule: RuleId,
    },
}

async fn id_of(engine: &Engine, name: &str) -> anyhow::Result<TenantId> {
    let id = engine.store().tenant_named(name).await?;
    id.with_context(|| format!("there is no tenant `{name}`; `api-key create` makes one"))
}

fn print(value: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(value)?)?)
}

pub(crate) async fn run(command: Intake, engine: &Engine) -> anyhow::Result<()> {
    match command {
        Intake::Add {
            tenant,
            prefix,
            suffix,
            preset,
            output_path,
            priority,
            job,
            poll_seconds,
            existing,
        } => {
            let job = match job {
                Some(path) => {
                    let failed = || format!("cannot read {}", path.display());
                    let bytes = std::fs::read(&path).with_context(failed)?;
                    mpegflow_protocol::from_json("job spec", &bytes, MAX_API_BODY).with_context(failed)?
                }
                None => {
                    let mut job = serde_json::Map::new();
                    job.insert("version".into(), 1.into());
                    job.insert("preset".into(), serde_json::json!(preset));
                    if let Some(path) = output_path {
                        job.insert("output".into(), serde_json::json!({ "path": path }));
                    }
                    if let Some(priority) = priority {
                        job.insert("priority".into(), priority.into());
                    }
                    serde_json::from_value(job.into())?
                }
            };
            let wanted = CreateRule { prefix, suffix, job, poll_seconds, existing };
            let made = engine.create_rule(id_of(engine, &tenant).await?, wanted, None).await?;
            print(&serde_json::from_slice::<serde_json::Value>(&made)?)
        }
        Intake::List { tenant } => print(&engine.rules(id_of(engine, &tenant).await?).await?),
        Intake::Look { tenant, rule } => {
            engine.look_again(id_of(engine, &tenant).await?, rule).await?;
            Ok(())
        }
        Intake::Remove { tenant, rule } => {
            Ok(engine.delete_rule(id_of(engine, &tenant).await?, rule).await?)
        }
    }
}
