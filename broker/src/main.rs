//! `mpegflow-broker`: wiring.

mod objects_args;
mod redis_args;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use mpegflow_broker::embedded::{self, Config, Opened};
use mpegflow_broker::queue::{self, MAX_WEIGHT};
use mpegflow_broker::store::Store as _;
use mpegflow_broker::store::postgres::{DatabaseConfig, DatabaseUrl, PostgresStore, UrlSource};
use mpegflow_protocol::ids::PoolName;
use objects_args::ObjectsArgs;
use redis_args::RedisArgs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The strict broker: the only thing that workers and tenants talk to.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// Where everything is kept.
    #[arg(long, global = true, default_value = "mpegflow-data", value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    redis: RedisArgs,
    /// Folder with the authority and the capabilities' key that replicas share; else they are in the data folder.
    #[arg(long, global = true, value_name = "DIR")]
    identity: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

/// PostgreSQL, in place of a file in the data folder. Passwords come from files, which are read again for each new connection.
#[derive(Debug, clap::Args)]
struct Database {
    /// PostgreSQL database, as postgres://USER@HOST:PORT/DATABASE without a password. Without it, a file in the data folder.
    #[arg(long, global = true, value_name = "URL", conflicts_with = "database_url_file", value_parser = DatabaseUrl::parse_without_password)]
    database_url: Option<DatabaseUrl>,
    /// File with the database's URL, which may hold a password.
    #[arg(long, global = true, value_name = "FILE")]
    database_url_file: Option<PathBuf>,
    /// File with the database's password.
    #[arg(long, global = true, value_name = "FILE")]
    database_password_file: Option<PathBuf>,
    /// Most connections to the database.
    #[arg(long, global = true, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1000), value_name = "NUMBER")]
    database_connections: u32,
}

impl Database {
    fn config(self) -> anyhow::Result<Option<DatabaseConfig>> {
        let url = match (self.database_url, self.database_url_file) {
            (Some(url), _) => UrlSource::Plain(url),
            (None, Some(file)) => UrlSource::File(file),
            (None, None) => {
                anyhow::ensure!(
                    self.database_password_file.is_none(),
                    "--database-password-file needs --database-url or --database-url-file"
                );
                return Ok(None);
            }
        };
        Ok(Some(DatabaseConfig {
            password_file: self.database_password_file,
            connections: self.database_connections,
            ..DatabaseConfig::new(url)
        }))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker.
    Serve {
        /// Address of the public API.
        #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
        listen: SocketAddr,
        /// Address of the worker API.
        #[arg(long, default_value = "127.0.0.1:8443", value_name = "ADDRESS")]
        worker_listen: SocketAddr,
        /// Address of the metrics.
        #[arg(long, value_name = "ADDRESS")]
        metrics_listen: Option<SocketAddr>,
        /// Another name or address by which workers know the broker.
        #[arg(long, value_name = "NAME")]
        worker_name: Vec<String>,
        /// Seconds a lease lives without a heartbeat.
        #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=600), value_name = "SECONDS")]
        lease: u64,
        /// Seconds after which a worker's connection is closed with its next answer, so that workers spread over replicas.
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400), value_name = "SECONDS")]
        connection_age: u64,
        #[command(flatten)]
        objects: Box<ObjectsArgs>,
    },
    /// Bring the tables of a PostgreSQL database up to date, and do nothing else. A broker does it at its start, too; before an
    /// upgrade, this is how to find out whether it can be done.
    Migrate,
    /// API keys of tenants.
    #[command(subcommand)]
    ApiKey(ApiKey),
    /// Join tokens of workers.
    #[command(subcommand)]
    JoinToken(JoinToken),
    /// Tenants.
    #[command(subcommand)]
    Tenant(Tenant),
    /// What replicas share.
    #[command(subcommand)]
    Identity(Identity),
    /// Prints the ACL lines of Redis for the account that brokers use and for the one that KEDA reads a pool's depth with. Each
    /// has PASSWORD in place of a password.
    RedisAcl {
        /// The pool whose depth KEDA reads.
        #[arg(long, default_value = "default", value_name = "NAME")]
        pool: PoolName,
    },
}

#[derive(Debug, Subcommand)]
enum Identity {
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
}

#[derive(Debug, Subcommand)]
enum ApiKey {
    /// Make a key, and the tenant where there is none of that name.
    Create {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// What the key is for.
        #[arg(long, default_value = "", value_name = "TEXT")]
        label: String,
        /// File to write the key to, mode 0600; standard output where it is left out.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
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

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let mut config = Config::new(args.data);
    config.database = args.database.config()?;
    config.redis = args.redis.config()?;
    config.identity = args.identity;
    anyhow::ensure!(
        config.redis.is_none() || config.database.is_some(),
        "brokers that share an index in Redis share a database: --redis-url needs --database-url or --database-url-file"
    );
    match args.command {
        Command::Serve {
            listen,
            worker_listen,
            metrics_listen,
            worker_name,
            lease,
            connection_age,
            objects,
        } => {
            config.public = listen;
            config.worker = worker_listen;
            config.metrics = metrics_listen;
            config.worker_names = worker_name;
            config.lease = std::time::Duration::from_secs(lease);
            config.connection_age = std::time::Duration::from_secs(connection_age);
            config.objects = objects.open(&config.data_dir).await?;
            serve(config).await
        }
        Command::Migrate => {
            let database = config.database.context("migrate needs --database-url or --database-url-file; a file in the data folder is brought up to date whenever it is opened")?;
            let store =
                PostgresStore::open(database).await.context("cannot bring the database up to date")?;
            store.close().await;
            Ok(())
        }
        Command::ApiKey(ApiKey::Create { tenant, label, out }) => {
            anyhow::ensure!(
                mpegflow_protocol::text::is_label(&tenant, 128),
                "a tenant's name has 1 to 128 printable characters"
            );
            let opened = Opened::open(&config).await?;
            let tenant = opened.engine().ensure_tenant(&tenant).await?;
            let key = opened.engine().create_api_key(tenant, &label).await?;
            opened.close().await;
            give(&key, out.as_deref())
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
        Command::Identity(Identity::Create { out }) => Ok(embedded::create_identity(&out)?),
        Command::RedisAcl { pool } => {
            let prefix = config.redis.map_or_else(|| redis_args::PREFIX.to_owned(), |redis| redis.prefix);
            let mut out = std::io::stdout();
            let broker = queue::redis::broker_user(&prefix, "PASSWORD").join(" ");
            writeln!(out, "ACL SETUSER mpegflow-broker {broker}")?;
            let keda = queue::redis::keda_user(&prefix, &pool, "PASSWORD").join(" ");
            writeln!(out, "ACL SETUSER mpegflow-keda-{pool} {keda}")?;
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

/// Hands a secret over, once.
fn give(secret: &str, out: Option<&Path>) -> anyhow::Result<()> {
    match out {
        Some(path) => mpegflow_broker::ca::write_private(path, format!("{secret}\n").as_bytes())
            .with_context(|| format!("cannot write {}", path.display())),
        None => Ok(writeln!(std::io::stdout(), "{secret}")?),
    }
}
