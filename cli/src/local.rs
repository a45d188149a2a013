//! A broker and its workers on this machine, for `transcode`, `probe` and `serve`.

use crate::client::Client;
use crate::exit::{Exit, Failed};
use crate::workers::{Programs, WorkerLog, Workers};
use mpegflow_broker::embedded::{Config, Running, StartError};
use mpegflow_broker::http::cors::{Origin, Origins};
use mpegflow_protocol::ids::PoolName;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const TENANT: &str = "local";
const KEY: &str = "api-key";
/// Any free port on loopback.
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What to start.
pub(crate) struct Setup {
    /// Folder for all state; made with mode 0700.
    pub(crate) data: PathBuf,
    /// Where the public API listens.
    pub(crate) public: SocketAddr,
    /// Where metrics listen.
    pub(crate) metrics: Option<SocketAddr>,
    /// Worker processes.
    pub(crate) workers: u16,
    /// How many brokers share this machine's cores, this one among them.
    pub(crate) beside: u16,
    /// What they run.
    pub(crate) programs: Programs,
    /// Where what they say goes.
    pub(crate) log: WorkerLog,
    /// Whose pages may call the API from a browser.
    pub(crate) origins: Vec<Origin>,
    /// Pages beside the API.
    pub(crate) routes: Option<axum::Router>,
}

/// A running broker with its workers.
pub(crate) struct Local {
    broker: Running,
    /// The workers.
    pub(crate) workers: Workers,
    /// A client of the one tenant.
    pub(crate) client: Client,
    /// The one tenant's API key.
    pub(crate) key: String,
    /// Where the public API listens.
    pub(crate) address: SocketAddr,
}

impl Local {
    /// Starts all of it.
    pub(crate) async fn start(mut setup: Setup) -> Result<Self, Failed> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&setup.data)
            .map_err(|e| Failed::file("create", &setup.data, &e))?;
        let mut config = Config::new(setup.data.join("broker"));
        config.public = setup.public;
        config.worker = LOOPBACK;
        config.metrics = setup.metrics;
        config.threads = threads_each(setup.workers.saturating_mul(setup.beside));
        config.origins = Origins(setup.origins.as_slice().into());
        config.extra_routes = setup.routes.take();
        let broker = mpegflow_broker::embedded::start(config).await.map_err(|e| broker_failed(&setup, &e))?;
        match Self::with_broker(&broker, &setup).await {
            Ok((client, key, workers)) => {
                Ok(Self { address: broker.public_addr(), broker, workers, client, key })
            }
            Err(e) => {
                broker.shutdown().await;
                Err(e)
            }
        }
    }

    async fn with_broker(broker: &Running, setup: &Setup) -> Result<(Client, String, Workers), Failed> {
        let failed = |what: &str, e: &dyn std::fmt::Display| {
            Failed::new(Exit::Failed, "broker_error", format!("the embedded broker: {what}: {e}"))
        };
        let (client, key) = tenant(broker, &setup.data.join(KEY)).await?;
        let join_file = setup.data.join("join.json");
        broker
            .write_join_file(&PoolName::default(), &join_file)
            .await
            .map_err(|e| failed("cannot write the join file", &e))?;
        let scratch = setup.data.join("workers");
        let workers =
            Workers::start(setup.workers, setup.programs.clone(), join_file, scratch, setup.log.clone())
                .map_err(|e| failed("cannot start workers", &e))?;
        Ok((client, key, workers))
    }

    /// Ends the workers, then the broker.
    pub(crate) async fn stop(self) {
        self.workers.stop().await;
        self.broker.shutdown().await;
    }
}

/// The one tenant, by the key of an earlier start where that still opens the door.
async fn tenant(broker: &Running, key_file: &Path) -> Result<(Client, String), Failed> {
    let failed = |e: &dyn std::fmt::Display| {
        Failed::new(Exit::Failed, "broker_error", format!("the embedded broker cannot make an API key: {e}"))
    };
    // A wildcard address is for listening only; this machine reaches it by loopback.
    let mut address = broker.public_addr();
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv6() {
            std::net::Ipv6Addr::LOCALHOST.into()
        } else {
            Ipv4Addr::LOCALHOST.into()
        });
    }
    if let Ok(key) = fs::read_to_string(key_file) {
        let key = key.trim().to_owned();
        let client = Client::local(address, &key)?;
        if client.jobs(None, 1).await.is_ok() {
            return Ok((client, key));
        }
    }
    let tenant = broker.ensure_tenant(TENANT).await.map_err(|e| failed(&e))?;
    let key = broker.create_api_key(tenant, "mpegflow").await.map_err(|e| failed(&e))?;
    write_secret(key_file, &key).map_err(|e| Failed::file("write", key_file, &e))?;
    Ok((Client::local(address, &key)?, key))
}

/// Writes a file that only its owner can read; it is there whole or not at all.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    let partial = path.with_extension("partial");
    // An earlier half could have other rights, which create(2) would keep.
    match fs::remove_file(&partial) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

fn broker_failed(setup: &Setup, error: &StartError) -> Failed {
    let text = mpegflow_protocol::text::chain(error);
    let failed =
        Failed::new(Exit::Failed, "broker_start", format!("the embedded broker does not start: {text}"));
    failed.help(match error {
        StartError::InUse(_) => {
            "Another `mpegflow serve` runs here: use that one, or name another folder by --data.".into()
        }
        StartError::Listen { .. } => {
            "Choose another address by --listen (or --metrics); port 0 takes a free one.".into()
        }
        _ => format!("Is {} writable, and is there room?", setup.data.display()),
    })
}

fn threads_each(workers: u16) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores.div_ceil(usize::from(workers).max(1))).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_is_readable_by_its_owner_only_even_over_an_old_half() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY);
        fs::write(path.with_extension("partial"), "old").unwrap();
        write_secret(&path, "mfk_1").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "mfk_1\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
