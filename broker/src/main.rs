//! `mpegflow-broker`: wiring.

mod commands;
mod decoders;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use mpegflow_broker::ca::rotation;
use mpegflow_broker::config::layers::{ENV_FILE, Flags};
use mpegflow_broker::config::resolved::Kubernetes;
use mpegflow_broker::config::setting::LogFormat;
use mpegflow_broker::config::{Layers, Objects as ObjectsPlace, Problems, Resolved, reference};
use mpegflow_broker::embedded::{self, Config, Opened};
use mpegflow_broker::enrol::PodTokens;
use mpegflow_broker::enrol::kubernetes::ApiServer;
use mpegflow_broker::lanes::Lanes;
use mpegflow_broker::model::TenantLimits;
use mpegflow_broker::objects::Objects;
use mpegflow_broker::objects::s3::S3Objects;
use mpegflow_broker::queue::{self, MAX_WEIGHT};
use mpegflow_broker::store::Store as _;
use mpegflow_broker::store::postgres::PostgresStore;
use mpegflow_protocol::ids::{PoolName, WorkerId};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The exit code where the configuration is wrong, as for wrong usage.
const WRONG: u8 = 2;

/// The strict broker: the only thing that workers and tenants talk to.
#[derive(Debug, Parser)]
#[command(version, about, subcommand_required = false)]
struct Args {
    /// Configuration file (TOML). A flag wins over the environment, that over the file.
    #[arg(long, global = true, env = ENV_FILE, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print what the configuration comes to, or everything that is wrong with it (exit code 2), and do nothing else.
    #[arg(long, global = true)]
    check_config: bool,
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker.
    Serve,
    /// Bring the tables of a PostgreSQL database up to date, and do nothing else. A broker does it at its start, too; before an
    /// upgrade, this is how to find out whether it can be done.
    Migrate,
    /// API keys of tenants.
    #[command(subcommand)]
    ApiKey(commands::keys::ApiKey),
    /// What a tenant may do and have, where that is not what all may.
    #[command(subcommand)]
    Limits(Limits),
    /// Tenants' own storage, in place of the broker's.
    #[command(subcommand)]
    Storage(commands::storage::Storage),
    /// Rules by which objects that arrive in tenants' own storage become jobs.
    #[command(subcommand)]
    Intake(commands::intake::Intake),
    /// Join tokens of workers.
    #[command(subcommand)]
    JoinToken(JoinToken),
    /// Identities of workers.
    #[command(subcommand)]
    Worker(Worker),
    /// Bans on decoders and demuxers, and the jobs that used one.
    #[command(subcommand)]
    Decoders(decoders::Decoders),
    /// Tenants.
    #[command(subcommand)]
    Tenant(Tenant),
    /// What replicas share.
    #[command(subcommand)]
    Identity(Identity),
    /// The audit log: signed checkpoints, and whether the log is what was signed.
    #[command(subcommand)]
    Audit(commands::audit::Audit),
    /// Prints the ACL lines of Redis for the account that brokers use and for the one that KEDA reads a pool's depth with. Each
    /// has PASSWORD in place of a password.
    RedisAcl {
        /// The pool whose depth KEDA reads.
        #[arg(long, default_value = "default", value_name = "NAME")]
        pool: PoolName,
        /// Print an ACL file (Redis' `aclfile`) in which nobody else may do anything, in place of commands.
        #[arg(long)]
        file: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Worker {
    /// Take a worker's identity away for good, whatever certificate it has. Its calls are refused within two seconds; its leases run
    /// out, and their tasks are tried again elsewhere. A pod keeps its UID: delete it, so that another takes its place.
    Revoke {
        /// The worker, as the log names it.
        #[arg(value_name = "WORKER")]
        worker: WorkerId,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Rotate {
    /// Make the next authority; the present one goes on signing.
    Prepare,
    /// Let the next one sign; the former stays trusted.
    Switch,
    /// Forget the former.
    Finish,
}

#[derive(Debug, Subcommand)]
enum Identity {
    /// Replace the authority, a step at a time. After each step every broker is started again on the folder, and its ca.pem goes to
    /// whoever trusts it; wait an hour before `finish`, until the last certificate of the former has expired.
    Rotate {
        /// The step.
        #[arg(value_enum)]
        step: Rotate,
        /// The folder that `identity create` made.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Make an authority and the capabilities' key, for `--identity` of every replica.
    Create {
        /// Folder to make, mode 0700.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Tenant {
    /// Sets a tenant's share of every pool; 100 unless it was set. Counts within half a minute.
    Weight {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// Twice this is twice the slot-seconds.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_WEIGHT)), value_name = "NUMBER")]
        weight: u32,
    },
    /// Deletes a tenant and all it has. Its keys are revoked and its name is free at once; a running broker cancels its jobs and
    /// removes its uploads, outputs and webhooks within minutes. Its events become digests that say nothing, so that the chain of
    /// the audit log still verifies.
    Delete {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// Say that this is meant: nothing of it comes back.
        #[arg(long, required = true)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Limits {
    /// Print a tenant's limits as JSON; what is left out is as for all.
    Show {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
    },
    /// Set a tenant's limits, all at once: what is left out is as for all. Every broker follows within seconds. Of a tenant that is a
    /// Tenant of a cluster, jobs, running tasks, bytes and minutes are what its `spec.quotas` says: within a minute they are that again.
    Set {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// Jobs that it may have unfinished at once.
        #[arg(long, value_name = "NUMBER")]
        unfinished_jobs: Option<u32>,
        /// Tasks that it may have running at once.
        #[arg(long, value_name = "NUMBER")]
        running_tasks: Option<u32>,
        /// Uploads that it may have unfinished at once.
        #[arg(long, value_name = "NUMBER")]
        unfinished_uploads: Option<u32>,
        /// Bytes of all its uploads.
        #[arg(long, value_name = "BYTES")]
        upload_bytes: Option<u64>,
        /// Minutes of output that one of its jobs may make.
        #[arg(long, value_name = "NUMBER")]
        job_output_minutes: Option<u32>,
        /// Core-seconds that one of its jobs may take, as estimated.
        #[arg(long, value_name = "NUMBER")]
        job_core_seconds: Option<u32>,
        /// Minutes of input that all its jobs may have in a calendar day, UTC.
        #[arg(long, value_name = "NUMBER")]
        minutes_per_day: Option<u32>,
        /// Days that its jobs are kept after they have ended, and its uploads after their last byte.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        keep_days: Option<u32>,
        /// Requests a second that it may make over time, at each broker.
        #[arg(long, value_name = "NUMBER")]
        requests_per_second: Option<u32>,
        /// Requests that it may make at once.
        #[arg(long, value_name = "NUMBER")]
        burst: Option<u32>,
        /// Whether a source's own pictures may be copied where they are what a rung is to be. A copy passes on what a stranger's
        /// encoder wrote; only its structure is checked, and that it decodes.
        #[arg(long, value_name = "true|false")]
        copy: Option<bool>,
    },
}

#[derive(Debug, Subcommand)]
enum JoinToken {
    /// Make the file that workers of a pool join with.
    Create {
        /// The pool.
        #[arg(long, default_value = "default", value_name = "NAME")]
        pool: PoolName,
        /// Address of the worker API as workers reach it.
        #[arg(long, default_value = "127.0.0.1:8443", value_name = "HOST:PORT")]
        broker: String,
        /// File to write, mode 0600.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Revoke every join token of a pool. Workers that have joined stay.
    Revoke {
        /// The pool.
        #[arg(long, default_value = "default", value_name = "NAME")]
        pool: PoolName,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let Args { config, check_config, flags, command } = Args::parse();
    let layers = Layers { file: config, env: variables(), flags: flags.into_map() };
    let (raw, mut problems) = layers.read();
    let resolved = Resolved::from_raw(&raw, &mut problems);
    if let (true, Some(resolved)) = (check_config, &resolved) {
        resolved.look_at_files(&mut problems);
    }
    let Some(resolved) = resolved.filter(|_| problems.is_empty()) else { return wrong(&problems) };
    if check_config {
        write!(std::io::stdout(), "{}", reference::listing(&raw))?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(command) = command else {
        <Args as clap::CommandFactory>::command()
            .error(clap::error::ErrorKind::MissingSubcommand, "say what to do, such as `serve`")
            .exit();
    };
    log(resolved.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Command::Audit(command) = command {
        return runtime.block_on(commands::audit::run(command, &resolved));
    }
    runtime.block_on(run(command, &resolved))?;
    Ok(ExitCode::SUCCESS)
}

/// The environment, as far as it is text.
fn variables() -> std::collections::BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn wrong(problems: &Problems) -> anyhow::Result<ExitCode> {
    writeln!(std::io::stderr(), "The configuration is wrong:\n{problems}")?;
    Ok(ExitCode::from(WRONG))
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).init(),
    }
}

/// The bucket, opened. One that does not answer is said in the log, and no error.
async fn bucket(place: &ObjectsPlace) -> anyhow::Result<Option<Arc<dyn Objects>>> {
    let ObjectsPlace::Bucket(config) = place else { return Ok(None) };
    let objects = S3Objects::open(config).context("cannot use the bucket")?;
    match objects.probe().await {
        Ok(probe) => {
            tracing::info!(conditional_writes = probe.conditional_writes, "storage does what it has to");
        }
        // It may before anything needs it; until it answers the broker says that it is not ready.
        Err(e) => {
            let error = format!("{:#}", anyhow::Error::from(e));
            tracing::error!(error, "storage does not do what it has to");
        }
    }
    Ok(Some(Arc::new(objects)))
}

/// How pods enrol. The API server is found, not asked: whether it answers shows when a pod comes.
async fn pods(kubernetes: Option<&Kubernetes>) -> anyhow::Result<Option<PodTokens>> {
    let Some(kubernetes) = kubernetes else { return Ok(None) };
    let server = ApiServer::find(kubernetes.kubeconfig.as_deref()).await;
    let server = server.context("cannot find Kubernetes' API server, which kubernetes.audience needs")?;
    Ok(Some(PodTokens {
        reviewer: Arc::new(server),
        audience: kubernetes.audience.clone(),
        operator: kubernetes.operator.clone(),
        accounts: kubernetes.accounts.clone(),
    }))
}

async fn run(command: Command, resolved: &Resolved) -> anyhow::Result<()> {
    let mut config = resolved.embedded();
    match command {
        // It has exit codes of its own.
        Command::Audit(command) => commands::audit::run(command, resolved).await.map(drop),
        Command::Serve => {
            config.objects = bucket(&resolved.objects).await?;
            config.pods = pods(resolved.kubernetes.as_ref()).await?;
            config.lanes =
                Lanes::start().context("cannot start the threads that carry workers' connections")?;
            serve(config).await
        }
        Command::Migrate => {
            let database = config.database.context("migrate needs --database-url or --database-url-file; a file in the data folder is brought up to date whenever it is opened")?;
            let store =
                PostgresStore::open(database).await.context("cannot bring the database up to date")?;
            store.close().await;
            Ok(())
        }
        Command::ApiKey(command) => {
            let opened = Opened::open(&config).await?;
            let done = commands::keys::run(command, opened.engine()).await;
            opened.close().await;
            done
        }
        Command::Storage(command) => {
            let opened = Opened::open(&config).await?;
            let done = commands::storage::run(command, opened.engine()).await;
            opened.close().await;
            done
        }
        Command::Intake(command) => {
            let opened = Opened::open(&config).await?;
            let done = commands::intake::run(command, opened.engine()).await;
            opened.close().await;
            done
        }
        Command::Limits(Limits::Show { tenant }) => {
            let opened = Opened::open(&config).await?;
            let store = opened.engine().store();
            let id = store
                .tenant_named(&tenant)
                .await?
                .with_context(|| format!("there is no tenant `{tenant}`"))?;
            let limits = store.tenant_limits(id).await?.unwrap_or_default();
            opened.close().await;
            Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&limits)?)?)
        }
        Command::Limits(Limits::Set {
            tenant,
            unfinished_jobs,
            running_tasks,
            unfinished_uploads,
            upload_bytes,
            job_output_minutes,
            job_core_seconds,
            minutes_per_day,
            keep_days,
            requests_per_second,
            burst,
            copy,
        }) => {
            let limits = TenantLimits {
                unfinished_jobs,
                running_tasks,
                unfinished_uploads,
                upload_bytes,
                job_output_minutes,
                job_core_seconds,
                minutes_per_day,
                retention_days: keep_days,
                requests_per_second,
                burst,
                copy,
            };
            let opened = Opened::open(&config).await?;
            let store = opened.engine().store();
            let id = store
                .tenant_named(&tenant)
                .await?
                .with_context(|| format!("there is no tenant `{tenant}`"))?;
            store.set_tenant_limits(id, &limits).await?;
            opened.close().await;
            Ok(())
        }
        Command::JoinToken(JoinToken::Create { pool, broker, out }) => {
            let opened = Opened::open(&config).await?;
            embedded::write_join_file(&opened, &broker, &pool, &out).await?;
            opened.close().await;
            Ok(())
        }
        Command::Tenant(Tenant::Weight { tenant, weight }) => {
            let opened = Opened::open(&config).await?;
            let known = opened.engine().store().set_tenant_weight(&tenant, weight).await?;
            opened.close().await;
            anyhow::ensure!(known, "there is no tenant of that name; `api-key create` makes one");
            Ok(())
        }
        Command::Worker(Worker::Revoke { worker }) => {
            let opened = Opened::open(&config).await?;
            let engine = opened.engine();
            let known = engine.store().revoke_worker(worker, engine.now()).await?;
            opened.close().await;
            anyhow::ensure!(known, "there is no worker {worker}");
            Ok(())
        }
        Command::Tenant(Tenant::Delete { tenant, yes: _ }) => {
            let opened = Opened::open(&config).await?;
            let id = opened.engine().delete_tenant(&tenant).await?;
            opened.close().await;
            let id = id.with_context(|| format!("there is no tenant `{tenant}`"))?;
            Ok(writeln!(std::io::stdout(), "deleted {id}")?)
        }
        Command::Decoders(command) => decoders::run(command, &config).await,
        Command::Identity(Identity::Create { out }) => Ok(embedded::create_identity(&out)?),
        Command::Identity(Identity::Rotate { step, dir }) => {
            let step = match step {
                Rotate::Prepare => rotation::Step::Prepare,
                Rotate::Switch => rotation::Step::Switch,
                Rotate::Finish => rotation::Step::Finish,
            };
            rotation::step(&dir.join("ca"), step).context("the authority was not replaced")
        }
        Command::RedisAcl { pool, file } => {
            let prefix = &resolved.redis_prefix;
            let mut out = std::io::stdout();
            let word = if file { "user" } else { "ACL SETUSER" };
            if file {
                writeln!(out, "user default off")?;
            }
            let broker = queue::redis::broker_user(prefix, "PASSWORD").join(" ");
            writeln!(out, "{word} mpegflow-broker {broker}")?;
            let keda = queue::redis::keda_user(prefix, &pool, "PASSWORD").join(" ");
            writeln!(out, "{word} mpegflow-keda-{pool} {keda}")?;
            Ok(())
        }
        Command::JoinToken(JoinToken::Revoke { pool }) => {
            let opened = Opened::open(&config).await?;
            let engine = opened.engine();
            let revoked = engine.store().revoke_join_tokens(&pool, engine.now()).await?;
            opened.close().await;
            writeln!(std::io::stdout(), "revoked {revoked}")?;
            Ok(())
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Before the start, so that a signal during it is not lost.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let running = embedded::start(config).await.context("the broker does not start")?;
    tracing::info!(public = %running.public_addr(), worker = %running.worker_addr(), metrics = ?running.metrics_addr(), "serving");
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    tracing::info!("draining");
    tokio::select! {
        () = running.shutdown() => Ok(()),
        _ = term.recv() => anyhow::bail!("stopped before the drain was done"),
        _ = int.recv() => anyhow::bail!("stopped before the drain was done"),
    }
}
