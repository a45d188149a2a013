//! `mpegflow-worker`: wiring. Parse, harden, enrol, lease, drain.

use clap::{Parser, ValueEnum};
use mpegflow_lockdown::confine::{self, Confined, Needs};
use mpegflow_protocol::endpoint::StorageEndpoint;
use mpegflow_worker::canary;
use mpegflow_worker::http::{EnrollError, HttpBroker, Join};
use mpegflow_worker::probe::{self, Around};
use mpegflow_worker::settings::Settings;
use mpegflow_worker::shutdown::{self, Phase, Stopper};
use mpegflow_worker::supervisor::{self, Ended};
use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

const AFTER_HELP: &str = "\
Example:
  mpegflow-worker --join /run/mpegflow/join.json
  mpegflow-worker --join /run/mpegflow/join.json --identity /run/identity      # in a pod, by its own token
  mpegflow-worker --join /run/mpegflow/join.json --canary /dev/termination-log --node 10.0.0.7   # looks around, and ends

Signals:
  SIGTERM, SIGINT   take no more work; finish what runs within --grace, else give it back. A second one stops at once.

Exit codes:
  0  drained or retired: nothing is left running; or a canary's report was written, whatever it says
  1  something failed here
  2  bad command line
  3  the join file or the codec binary cannot be used
  4  the broker refuses this worker
  5  this worker reaches what no worker may reach, and does not enrol
  130  stopped at once by a second signal";

/// Leases tasks from an mpegflow broker and runs each in a fresh, locked codec process.
#[derive(Debug, Parser)]
#[command(name = "mpegflow-worker", version, after_help = AFTER_HELP)]
struct Args {
    /// The join file: the broker's (mode 0600; it holds a secret), or one that names the file of this pod's own token.
    #[arg(long, value_name = "FILE")]
    join: PathBuf,
    /// A private folder for the key of this pod, in which a container that starts again finds it; only for a pod's own token.
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
    /// The codec binary [default: mpegflow-codec beside this one]
    #[arg(long, value_name = "PATH")]
    codec: Option<PathBuf>,
    /// A private folder for unlinked files of outputs that must be sought.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
    /// Seconds to finish running work after the first signal.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
    /// Be a canary: look at what a worker could reach from here, write that to a file, and end. It enrols nowhere and needs no token.
    #[arg(long, value_name = "FILE", requires = "node", conflicts_with_all = ["identity", "codec"])]
    canary: Option<PathBuf>,
    /// Address of the node that a canary is on.
    #[arg(long, value_name = "ADDRESS", requires = "canary")]
    node: Option<IpAddr>,
    /// How to write the log, on standard error [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT")]
    log: Option<LogFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

const FAILED: u8 = 1;
const UNUSABLE: u8 = 3;
const REFUSED: u8 = 4;
const OPEN: u8 = 5;
/// Policies that are enforced are enforced within this time of a pod's start.
const STILL_OPEN: Duration = Duration::from_secs(60);
const ABORTED: u8 = 130;

fn main() -> ExitCode {
    let args = Args::parse();
    start_log(args.log);
    // Before any thread and any secret.
    if let Err(error) = mpegflow_lockdown::supervise::harden() {
        tracing::error!(%error, "this process could not be hardened");
        return ExitCode::from(FAILED);
    }
    if let (Some(report), Some(node)) = (&args.canary, args.node) {
        return be_canary(&args.join, report, node);
    }
    match prepare(&args) {
        Ok((join, settings)) => {
            // Before this process locks itself in, which would be all that it saw.
            if !isolated(&join) {
                return ExitCode::from(OPEN);
            }
            confine(&join, &settings);
            start(join, &settings, Duration::from_secs(args.grace))
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot start");
            ExitCode::from(UNUSABLE)
        }
    }
}

/// Looks around, says what it saw, and ends.
fn be_canary(join: &Path, file: &Path, node: IpAddr) -> ExitCode {
    let join = match Join::read(join) {
        Ok(join) => join,
        Err(error) => {
            tracing::error!(%error, "the join file");
            return ExitCode::from(UNUSABLE);
        }
    };
    let report = canary::look(join.broker.as_str(), &join.unreachable, canary::node(node), STILL_OPEN);
    tracing::info!(?report, "what a worker could reach from here");
    match canary::write(&report, file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, file = %file.display(), "the report cannot be written");
            ExitCode::from(FAILED)
        }
    }
}

/// Waits until nothing answers that must not. Enforcement may come up after the pod; what is open for longer stays open.
fn isolated(join: &Join) -> bool {
    if join.unreachable.is_empty() {
        return true;
    }
    let begun = std::time::Instant::now();
    loop {
        match probe::around(join.broker.as_str(), &join.unreachable) {
            Around::Isolated => {
                tracing::info!(
                    looked_at = join.unreachable.len(),
                    "the broker answers, and nothing else does"
                );
                return true;
            }
            Around::NoBroker => tracing::warn!("the broker does not answer yet"),
            Around::Open(who) => {
                tracing::warn!(?who, "this worker reaches more than the broker");
                if begun.elapsed() > STILL_OPEN {
                    tracing::error!(?who, "this worker is not isolated; it does not enrol");
                    return false;
                }
            }
        }
        std::thread::sleep(Duration::from_secs(2));
    }
}

// Best effort: where the kernel cannot, the codec's own locks hold all the same, and the network policy stands around both.
fn confine(join: &Join, settings: &Settings) {
    let (codec, scratch) = (settings.codec.as_path(), settings.scratch.as_path());
    let mut ports = vec![join.port];
    ports.extend(join.storage.iter().map(StorageEndpoint::port));
    let needs = Needs { codec, scratch, reread: join.changes(), ports: &ports };
    match confine::confine(needs) {
        Ok(Confined::Fully) if join.storage.is_empty() => {
            tracing::info!(port = join.port, "this process may connect to the broker's port only")
        }
        Ok(Confined::Fully) => {
            tracing::info!(?ports, "this process may connect to the ports of the broker and of storage only")
        }
        Ok(partly) => tracing::warn!(
            ?partly,
            "this kernel does not confine this process in full; use Linux 6.12 or later"
        ),
        Err(error) => tracing::warn!(%error, "this process could not be confined"),
    }
}

fn start_log(format: Option<LogFormat>) {
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let filter = tracing_subscriber::EnvFilter::try_from_env("MPEGFLOW_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    match format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.with_target(false).init(),
    }
}

fn prepare(args: &Args) -> anyhow::Result<(Join, Settings)> {
    use anyhow::Context as _;
    let codec = match &args.codec {
        Some(codec) => codec.clone(),
        None => std::env::current_exe().context("where this program is")?.with_file_name("mpegflow-codec"),
    };
    // Absolute, because a codec process starts in `/`.
    let codec = codec.canonicalize().with_context(|| format!("the codec binary {}", codec.display()))?;
    anyhow::ensure!(codec.is_file(), "the codec binary {} is not a file", codec.display());
    let scratch = args.scratch.canonicalize();
    let scratch = scratch.with_context(|| format!("the scratch folder {}", args.scratch.display()))?;
    let join = Join::read(&args.join).and_then(|join| join.with_key(args.identity.as_deref()));
    let join = join.context("the join file")?;
    Ok((join, Settings::new(codec, scratch)))
}

fn start(join: Join, settings: &Settings, grace: Duration) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no threads");
            return ExitCode::from(FAILED);
        }
    };
    let code = runtime.block_on(run(join, settings, grace));
    // Nothing that still runs is worth waiting for: codecs are killed by their guards.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn run(join: Join, settings: &Settings, grace: Duration) -> ExitCode {
    let (stopper, mut shutdown) = shutdown::channel();
    if let Err(error) = watch_signals(stopper, grace) {
        tracing::error!(%error, "signals cannot be watched");
        return ExitCode::from(FAILED);
    }
    let broker = tokio::select! {
        enrolled = HttpBroker::enroll(join) => match enrolled {
            Ok(broker) => Arc::new(broker),
            Err(error) => return refused(&error),
        },
        phase = shutdown.reached(Phase::Drain) => return exit_code(phase),
    };
    tracing::info!(worker = %broker.worker(), codec = %settings.codec.display(), "enrolled");
    loop {
        let ended = tokio::select! {
            ended = supervisor::run(&broker, settings, shutdown.clone()) => ended,
            Err(error) = broker.keep_renewed() => return refused(&error),
        };
        match ended {
            Ended::Drained | Ended::Retired => {
                tracing::info!(?ended, "done");
                return ExitCode::SUCCESS;
            }
            Ended::Aborted => return ExitCode::from(ABORTED),
            Ended::Unknown => tokio::select! {
                enrolled = broker.unknown(broker.worker()) => if let Err(error) = enrolled {
                    return refused(&error);
                },
                phase = shutdown.reached(Phase::Drain) => return exit_code(phase),
            },
        }
    }
}

fn exit_code(phase: Phase) -> ExitCode {
    if phase == Phase::Abort { ExitCode::from(ABORTED) } else { ExitCode::SUCCESS }
}

fn refused(error: &EnrollError) -> ExitCode {
    tracing::error!(%error, "no identity");
    ExitCode::from(if matches!(error, EnrollError::Refused(_) | EnrollError::Token) {
        REFUSED
    } else {
        FAILED
    })
}

fn watch_signals(stopper: Stopper, grace: Duration) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let mut draining = None;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if draining.is_some() {
                tracing::warn!("stopping at once");
                stopper.advance(Phase::Abort);
                return;
            }
            tracing::info!(grace_s = grace.as_secs(), "draining; once more to stop at once");
            let stopper = stopper.clone();
            draining = Some(tokio::spawn(async move { stopper.drain_within(grace).await }));
        }
    });
    Ok(())
}
