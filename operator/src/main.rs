//! `mpegflow-operator`: wiring. Parse, elect, reconcile, release.

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use mpegflow_operator::lease::{Candidate, Timing};
use mpegflow_operator::settings::{BrokerService, Depth, Settings};
use mpegflow_operator::{control, controller, crd};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

const AFTER_HELP: &str = "\
Examples:
  mpegflow-operator run --broker-ca /etc/mpegflow/ca.crt
  mpegflow-operator run --broker-ca ca.crt --redis redis.example.com:6379 --redis-authentication mpegflow-depth
  mpegflow-operator crds --out chart/mpegflow-crds/templates

Exit codes:
  0  told to stop
  1  something failed here
  2  bad command line
  5  the lease was lost: another replica leads";

/// Turns Tenants and WorkerPools into hardened, isolated Deployments that scale.
#[derive(Debug, Parser)]
#[command(name = "mpegflow-operator", version, after_help = AFTER_HELP)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Reconcile until told to stop. The cluster is the one of KUBECONFIG, or the one this pod runs in.
    Run(Box<Run>),
    /// Print the definitions of Tenant and WorkerPool, or write them.
    Crds {
        /// Folder for a file of each kind, instead of standard output.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// Namespace of the broker's Service.
    #[arg(long, value_name = "NAMESPACE", default_value = "mpegflow")]
    broker_namespace: String,
    /// The broker's Service; its port is the one named worker-api.
    #[arg(long, value_name = "NAME", default_value = "mpegflow-broker")]
    broker_service: String,
    /// The name in the broker's certificate.
    #[arg(long, value_name = "NAME", default_value = "mpegflow-broker")]
    broker_name: String,
    /// The CA of that certificate, PEM.
    #[arg(long, value_name = "FILE")]
    broker_ca: PathBuf,
    /// Audience of the workers' tokens.
    #[arg(long, value_name = "NAME", default_value = "mpegflow-broker")]
    audience: String,
    /// The Redis that KEDA reads depths from; without it no ScaledObject is made.
    #[arg(long, value_name = "HOST:PORT")]
    redis: Option<String>,
    /// Key of a pool's depth in it, as the broker writes it; {pool} stands for the pool's name.
    #[arg(long, value_name = "KEY", default_value = "{mpegflow:{pool}}:depth", requires = "redis")]
    redis_key: String,
    /// KEDA speaks TLS to it.
    #[arg(long, requires = "redis")]
    redis_tls: bool,
    /// The ClusterTriggerAuthentication by which KEDA signs in to it; {pool} stands for the pool's name.
    #[arg(long, value_name = "NAME", requires = "redis")]
    redis_authentication: Option<String>,
    /// The broker's control API, by its address: pools and tenants are pushed to it, and it says who is busy. Without it nothing is
    /// pushed, and workers that have started are never scaled in.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "broker_token")]
    control: Option<std::net::SocketAddr>,
    /// File with the token of this pod for the broker's audience.
    #[arg(long, value_name = "FILE", requires = "control")]
    broker_token: Option<PathBuf>,
    /// An address that no worker may reach, besides the API server, the control API and the metadata services: a worker that finds one
    /// of them to answer does not enrol. Name a resolver, a node, another pod, a host outside. The operator asks there as well, since
    /// silence says something only where somebody is: one that answers nobody keeps pools from work once their verdicts have expired.
    #[arg(long, value_name = "NAME=ADDRESS:PORT", value_parser = unreachable)]
    unreachable: Vec<(String, std::net::SocketAddr)>,
    /// Canaries, pods that try the isolation of pools, at once.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    canaries: u16,
    /// Pools that are worked on at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Seconds between two looks at which kinds the cluster knows.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    discover_every: u64,
    /// Namespace of the Lease.
    #[arg(long, value_name = "NAMESPACE", default_value = "mpegflow")]
    lease_namespace: String,
    /// Who this is in the Lease and in events; unlike every other replica [default: the host's name and a random number]
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Seconds that a lease lasts which nobody renews; it is given up after two thirds of them.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=600))]
    lease_seconds: u64,
}

const LEASE: &str = "mpegflow-operator";
const FAILED: u8 = 1;
const LOST: u8 = 5;

fn main() -> ExitCode {
    let command = Command::parse();
    let done = match command.action {
        Action::Crds { out } => crds(out.as_deref()).map(|()| ExitCode::SUCCESS),
        Action::Run(run) => start(*run),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "mpegflow-operator: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn crds(out: Option<&Path>) -> anyhow::Result<()> {
    for (name, definition) in crd::definitions() {
        let text = crd::to_yaml(&definition);
        match out {
            Some(dir) => {
                let path = dir.join(name);
                std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            }
            None => write!(std::io::stdout(), "---\n{text}").context("writing to standard output")?,
        }
    }
    Ok(())
}

fn start(run: Run) -> anyhow::Result<ExitCode> {
    start_log();
    let settings = settings(&run)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting threads")?;
    runtime.block_on(lead(run, settings))
}

fn settings(run: &Run) -> anyhow::Result<Settings> {
    let ca = std::fs::read_to_string(&run.broker_ca);
    let ca = ca.with_context(|| format!("reading the broker's CA {}", run.broker_ca.display()))?;
    anyhow::ensure!(
        ca.contains("-----BEGIN CERTIFICATE-----") && !ca.contains("PRIVATE KEY"),
        "{} does not hold certificates and nothing else; every worker gets to read it",
        run.broker_ca.display()
    );
    let mut settings = Settings::new(BrokerService {
        namespace: run.broker_namespace.clone(),
        name: run.broker_service.clone(),
        server_name: run.broker_name.clone(),
        ca,
        audience: run.audience.clone(),
    });
    settings.depth = run.redis.as_ref().map(|address| Depth {
        address: address.clone(),
        key: run.redis_key.clone(),
        tls: run.redis_tls,
        authentication: run.redis_authentication.clone(),
    });
    settings.control = run.control.zip(run.broker_token.clone()).map(|(address, token)| control::Settings {
        address,
        server_name: run.broker_name.clone(),
        ca: run.broker_ca.clone(),
        token,
    });
    settings.unreachable.extend(api_server());
    settings.unreachable.extend(run.unreachable.iter().cloned());
    let most = mpegflow_protocol::canary::MAX_TARGETS;
    anyhow::ensure!(
        mpegflow_operator::desired::targets(&settings).len() <= most,
        "--unreachable names too many addresses: with the operator's own there may be {most}"
    );
    settings.canaries = run.canaries;
    settings.concurrency = run.concurrency;
    settings.discover_every = Duration::from_secs(run.discover_every);
    Ok(settings)
}

/// `NAME=ADDRESS:PORT`.
fn unreachable(text: &str) -> Result<(String, std::net::SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("write NAME=ADDRESS:PORT")?;
    Ok((name.to_owned(), address.parse().map_err(|_| format!("`{address}` is no address and port"))?))
}

/// The API server's address, as Kubernetes puts it into the environment of every pod.
fn api_server() -> Option<(String, std::net::SocketAddr)> {
    let host: std::net::IpAddr = std::env::var("KUBERNETES_SERVICE_HOST").ok()?.parse().ok()?;
    let port: u16 = std::env::var("KUBERNETES_SERVICE_PORT").ok()?.parse().ok()?;
    Some(("API server".to_owned(), (host, port).into()))
}

async fn lead(run: Run, settings: Settings) -> anyhow::Result<ExitCode> {
    let client = kube::Client::try_default().await.context("finding the cluster")?;
    let stop = stop_on_signals()?;
    let identity = run.identity.unwrap_or_else(identity);
    let duration = Duration::from_secs(run.lease_seconds);
    let timing =
        Timing { duration, renew_deadline: duration.mul_f64(2.0 / 3.0), retry: duration.mul_f64(2.0 / 15.0) };
    let mut candidate = Candidate::new(client.clone(), &run.lease_namespace, LEASE, &identity, timing);
    tracing::info!(identity, "waiting for the lease");
    if !candidate.acquire(&stop).await {
        return Ok(ExitCode::SUCCESS);
    }
    tracing::info!(identity, "leading");
    let work = CancellationToken::new();
    let controllers = tokio::spawn(controller::run(client, settings, identity_of(&identity), work.clone()));
    tokio::pin!(controllers);
    // The lease is released only after the last write of ours is done.
    let release = CancellationToken::new();
    let kept = candidate.keep(&release);
    tokio::pin!(kept);
    let mut stopping = false;
    loop {
        tokio::select! {
            lost = &mut kept => {
                return match lost {
                    Ok(()) => Ok(ExitCode::SUCCESS),
                    // At once, with whatever is under way: another may already lead.
                    Err(why) => {
                        tracing::error!(%why, "no longer leading");
                        Ok(ExitCode::from(LOST))
                    }
                };
            }
            ended = &mut controllers, if !release.is_cancelled() => {
                ended.context("the controllers failed")?;
                anyhow::ensure!(stop.is_cancelled(), "the controllers ended by themselves");
                release.cancel();
            }
            () = stop.cancelled(), if !stopping => {
                tracing::info!("stopping");
                stopping = true;
                work.cancel();
            }
        }
    }
}

fn identity_of(identity: &str) -> String {
    identity.chars().take(120).collect()
}

fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let unique = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    format!("{}_{}", host.trim(), unique.trim())
}

fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut term = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}

fn start_log() {
    let terminal = std::io::stderr().is_terminal();
    let filter = tracing_subscriber::EnvFilter::try_from_env("MPEGFLOW_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // It warns of an answer that it cannot read with all of the answer, a list of every pool among them; the error says where.
    let filter = match "kube_client::client=error".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    if terminal {
        log.with_target(false).init();
    } else {
        log.json().flatten_event(true).init();
    }
}
