//! The whole broker in one process: SQLite or PostgreSQL, a queue in memory, a local folder. Without a database's URL no set-up.

use crate::audit::keep::{KeepError, Keeper};
use crate::ca::{self, Ca, CaError, SERVER_NAME};
use crate::capability::Capabilities;
use crate::engine::{
    Engine, Leadership, Meters, OrphansError, Parts, Quotas, Rate, SecretError, Tracing, URL_LIFE,
};
use crate::enrol::{Enrolment, PodTokens};
use crate::http::cors::Origins;
use crate::http::{control, metrics, public, serve, worker};
use crate::lanes::Lanes;
use crate::model::{Clock, SystemClock};
use crate::objects::local::LocalObjects;
use crate::objects::measured::Measured;
use crate::objects::own::Setup;
use crate::objects::tenants::TenantObjects;
use crate::objects::{ObjectError, Objects};
use crate::oidc::{Oidc, OidcConfig};
use crate::otlp::{self, OtlpConfig};
use crate::plan::Settings;
use crate::queue::redis::{RedisConfig, RedisQueue, RedisUrlError};
use crate::queue::{MemoryQueue, Queue};
use crate::scopes::Scopes;
use crate::secret;
use crate::store::postgres::{DatabaseConfig, PostgresStore};
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};
use crate::webhooks::post::{Poster, Resolve, SystemResolver};
use crate::webhooks::secret::Secrets;
use crate::webhooks::{self, sender};
use axum::Router;
use mpegflow_protocol::encoder::EncoderSpeed;
use mpegflow_protocol::ids::{PoolName, TenantId};
use mpegflow_protocol::worker::JoinFile;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Leases are looked at this often.
const TICK: Duration = Duration::from_millis(500);
/// Ticks from one claim to the lead to the next: several in a term.
const STAND_EVERY: u32 = 4;
/// The queue is compared with the store this often.
const RECONCILE: Duration = Duration::from_secs(10);
/// Files that nothing needs are removed this often.
const SWEEP: Duration = Duration::from_secs(30);
/// What is older than its tenant keeps is looked for this often.
const RETAIN: Duration = Duration::from_secs(60);
/// A search for files that no row knows is made again after this long where it did not come to its end.
const ORPHANS_AGAIN: Duration = Duration::from_secs(600);

/// Where checkpoints of the audit log are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// The folder.
    pub checkpoints: PathBuf,
    /// The file with the key that signs them.
    pub key: PathBuf,
    /// How often.
    pub interval: Duration,
}

/// How to start.
#[derive(Clone)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where the public API listens; port 0 takes a free one.
    pub public: SocketAddr,
    /// Where the worker API listens.
    pub worker: SocketAddr,
    /// Where the metrics are.
    pub metrics: Option<SocketAddr>,
    /// Where the operator of a cluster pushes to.
    pub control: Option<SocketAddr>,
    /// How pods enrol; where it is left out, by join tokens alone.
    pub pods: Option<PodTokens>,
    /// How long a lease lives without a heartbeat.
    pub lease: Duration,
    /// x264 preset.
    pub x264: EncoderSpeed,
    /// Threads of a codec process.
    pub threads: u32,
    /// More names and addresses that workers may know the broker by.
    pub worker_names: Vec<String>,
    /// What a tenant may have.
    pub quotas: Quotas,
    /// How many requests a tenant may make.
    pub rate: Rate,
    /// Whose tokens are taken beside API keys, and what each of them may do.
    pub oidc: Option<(OidcConfig, Scopes)>,
    /// Where traces go; nowhere where there is none.
    pub otlp: Option<OtlpConfig>,
    /// Where checkpoints of the audit log are kept; nowhere where there is none.
    pub audit: Option<AuditConfig>,
    /// How long a tenant's data is kept where its limits say nothing; for ever where there is none.
    pub retention: Option<Duration>,
    /// How often whoever leads that looks for files that no row knows, beside when it has come to lead.
    pub orphans: Duration,
    /// Whose pages may call the public API from a browser.
    pub origins: Origins,
    /// Routes beside the public API: a page and its assets.
    pub extra_routes: Option<Router>,
    /// Other storage than the local folder.
    pub objects: Option<Arc<dyn Objects>>,
    /// What tenants' own storage may be.
    pub tenant_storage: Setup,
    /// PostgreSQL, in place of a file in the data folder.
    pub database: Option<DatabaseConfig>,
    /// Redis, in place of an index in this process.
    pub redis: Option<RedisConfig>,
    /// A folder with the authority and the capabilities' key, which replicas share; else they are in the data folder.
    pub identity: Option<PathBuf>,
    /// Connections to the public API at once.
    pub public_connections: usize,
    /// Connections of workers at once.
    pub worker_connections: usize,
    /// A worker's connection is closed after the answer that follows this: the next one may go to another broker, so that
    /// brokers that are new get their share.
    pub connection_age: Duration,
    /// How long it goes on answering after it was told to end, so that those in front notice.
    pub grace: Duration,
    /// Where webhooks may be.
    pub webhooks: webhooks::Policy,
    /// What finds the addresses of webhooks.
    pub resolver: Arc<dyn Resolve>,
    /// How long a URL for a worker of a presigned pool holds.
    pub url_life: Duration,
    /// What carries workers' connections.
    pub lanes: Lanes,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("data_dir", &self.data_dir)
            .field("public", &self.public)
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// The defaults: loopback, free ports, 15 s leases.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let data_dir: PathBuf = data_dir.into();
        let tenant_storage = Setup { spool_dir: data_dir.join("spool"), ..Setup::default() };
        Self {
            data_dir,
            public: loopback,
            worker: loopback,
            metrics: None,
            control: None,
            pods: None,
            lease: Duration::from_secs(15),
            x264: EncoderSpeed::Fast,
            threads: u32::try_from(threads).unwrap_or(1),
            worker_names: Vec::new(),
            quotas: Quotas::default(),
            rate: Rate::default(),
            oidc: None,
            otlp: None,
            audit: None,
            retention: None,
            orphans: Duration::from_secs(24 * 3_600),
            origins: Origins::default(),
            extra_routes: None,
            objects: None,
            tenant_storage,
            database: None,
            redis: None,
            identity: None,
            public_connections: serve::Limits::default().connections,
            worker_connections: serve::Limits::default().connections,
            connection_age: Duration::from_secs(300),
            grace: Duration::ZERO,
            webhooks: webhooks::Policy::default(),
            resolver: Arc::new(SystemResolver),
            url_life: URL_LIFE,
            lanes: Lanes::default(),
        }
    }
}

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error("cannot use the data folder {}", path.display())]
    Data {
        /// The folder.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Another broker uses the data folder.
    #[error("another broker uses the data folder {}", .0.display())]
    InUse(PathBuf),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What happened.
        source: io::Error,
    },
    /// The certificate authority cannot be used.
    #[error("cannot use the certificate authority")]
    Ca(#[from] CaError),
    /// The capabilities' key cannot be used.
    #[error("cannot use the key {}: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The database cannot be used.
    #[error("cannot use the database")]
    Store(#[from] StoreError),
    /// Redis cannot be reached as it is said.
    #[error("cannot use Redis' address")]
    Redis(#[from] RedisUrlError),
    /// The certificate authorities for the issuer of tokens cannot be read.
    #[error("cannot read the certificate authorities for the issuer of tokens")]
    Oidc(#[source] io::Error),
    /// The certificate authorities for the collector of traces cannot be read.
    #[error("cannot read the certificate authorities for the collector of traces")]
    Otlp(#[source] io::Error),
    /// Checkpoints of the audit log cannot be kept.
    #[error("cannot keep checkpoints of the audit log")]
    Audit(#[from] KeepError),
    /// The certificate authorities for webhooks cannot be read.
    #[error("cannot read the certificate authorities for webhooks")]
    Webhooks(#[source] io::Error),
    /// The certificate authorities for tenants' own storage cannot be read.
    #[error("cannot read the certificate authorities for tenants' own storage")]
    TenantStorage(#[source] io::Error),
    /// Storage cannot be used.
    #[error("cannot use the objects' folder")]
    Objects(#[from] ObjectError),
}

/// Why an administrative call failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A secret was not made.
    #[error("cannot make a secret")]
    Secret(#[from] SecretError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// The data folder, opened: enough to make keys and tokens.
pub struct Opened {
    engine: Arc<Engine>,
    ca: Arc<Ca>,
    export: Option<Export>,
}

/// What sends spans, once it runs.
struct Export {
    queue: Arc<otlp::queue::Queue>,
    waiting: otlp::queue::Waiting,
    sender: otlp::Sender,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opened(…)")
    }
}

impl Opened {
    /// Opens the data folder, beside a broker that may run on it.
    ///
    /// # Errors
    /// Something in it cannot be used.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        let dir = &config.data_dir;
        ca::make_private_dir(dir).map_err(|source| StartError::Data { path: dir.clone(), source })?;
        let (ca, key) = match &config.identity {
            None => (Ca::open(&dir.join("ca"))?, capability_key(&dir.join("capability.key"))?),
            Some(shared) => {
                // Made here, each replica would have its own, and refuse the others' workers.
                let needed = ["ca/ca.key", "ca/ca.pem", "capability.key"].map(|name| shared.join(name));
                if let Some(missing) = needed.into_iter().find(|path| !path.exists()) {
                    let reason =
                        "it is missing; `mpegflow-broker identity create` makes a whole folder".into();
                    return Err(StartError::Key { path: missing, reason });
                }
                (Ca::read(&shared.join("ca"))?, capability_key(&shared.join("capability.key"))?)
            }
        };
        let ca = Arc::new(ca);
        let (store, clock): (Arc<dyn Store>, Arc<dyn Clock>) = match &config.database {
            None => (Arc::new(SqliteStore::open(&dir.join("broker.db")).await?), Arc::new(SystemClock)),
            Some(database) => {
                let store = PostgresStore::open(database.clone()).await?;
                // Deadlines are on the database's time, so what is compared with them is too.
                let clock = Arc::new(store.clock());
                (Arc::new(store), clock)
            }
        };
        let shared: Arc<dyn Objects> = match &config.objects {
            Some(objects) => Arc::clone(objects),
            None => Arc::new(LocalObjects::open(dir.join("objects")).await?),
        };
        let storage = Arc::new(config.tenant_storage.clone());
        let objects = TenantObjects::new(shared, Arc::clone(&store), Arc::clone(&storage));
        let objects = objects.map_err(StartError::TenantStorage)?;
        let queue: Arc<dyn Queue> = match &config.redis {
            None => Arc::new(MemoryQueue::default()),
            Some(redis) => {
                redis.check()?;
                Arc::new(RedisQueue::new(redis.clone()))
            }
        };
        let meters = Arc::new(Meters::default());
        let engine = Engine::new(Parts {
            store,
            queue,
            objects: Arc::new(Measured::new(Arc::new(objects), Arc::clone(&meters))),
            clock,
            capabilities: Capabilities::new(&key),
            settings: Settings {
                x264: config.x264,
                threads: config.threads.max(1),
                caps: config.quotas.caps,
            },
            lease: config.lease,
            quotas: config.quotas,
            meters,
            rate: config.rate,
            webhook_secrets: Secrets::new(&key),
            webhook_policy: config.webhooks.clone(),
            storage,
            url_life: config.url_life,
        });
        let (engine, export) = match &config.otlp {
            None => (engine, None),
            Some(otlp) => {
                let sender = otlp::Sender::new(otlp).map_err(StartError::Otlp)?;
                let (queue, waiting) = otlp::queue::new();
                let tracing = Tracing { spans: queue.clone(), share: otlp.share, incoming: otlp.incoming };
                (engine.with_tracing(tracing), Some(Export { queue, waiting, sender }))
            }
        };
        let engine = Arc::new(match &config.oidc {
            None => engine,
            Some((oidc, scopes)) => {
                let tokens = Oidc::new(oidc.clone()).map_err(StartError::Oidc)?;
                engine.with_tokens(Arc::new(tokens), *scopes)
            }
        });
        Ok(Self { engine, ca, export })
    }

    /// What the broker does.
    pub const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The CA's certificate, PEM.
    pub fn ca_certificate(&self) -> &str {
        self.ca.certificate()
    }

    /// Closes the database.
    pub async fn close(self) {
        self.engine.store().close().await;
    }
}

/// Makes what replicas share: an authority and the capabilities' key, in a folder of their own.
///
/// # Errors
/// Something is there already, or cannot be written.
pub fn create_identity(dir: &Path) -> Result<(), StartError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| StartError::Data { path, source }
    };
    ca::make_private_dir(dir).map_err(failed(dir))?;
    let key = dir.join("capability.key");
    for path in [&dir.join("ca"), &key] {
        if path.exists() {
            return Err(failed(path)(io::ErrorKind::AlreadyExists.into()));
        }
    }
    Ca::open(&dir.join("ca"))?;
    capability_key(&key).map(drop)
}

/// The file with what a worker needs to join.
///
/// # Errors
/// No token could be made, or the file cannot be written.
pub async fn write_join_file(
    opened: &Opened,
    broker: &str,
    pool: &PoolName,
    path: &Path,
) -> Result<(), AdminError> {
    let join = JoinFile {
        broker: broker.to_owned(),
        server_name: SERVER_NAME.into(),
        ca: opened.ca.certificate().to_owned(),
        token: opened.engine.create_join_token(pool).await?,
        token_file: None,
        pool: pool.clone(),
        unreachable: Vec::new(),
        storage: Vec::new(),
    };
    let bytes = mpegflow_protocol::to_json(&join);
    ca::write_private(path, &bytes).map_err(|source| AdminError::File { path: path.to_owned(), source })
}

/// A running broker. Dropping it ends it as a crash would; [`Self::shutdown`] drains first.
pub struct Running {
    opened: Opened,
    public: SocketAddr,
    worker: SocketAddr,
    metrics: Option<SocketAddr>,
    control: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    /// What sends spans, and what ends it: after everything that makes some.
    export: JoinSet<()>,
    stop_export: CancellationToken,
    grace: Duration,
    _lock: std::fs::File,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("public", &self.public)
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// Starts a broker.
///
/// # Errors
/// The data folder, an address or the database cannot be used.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let dir = &config.data_dir;
    ca::make_private_dir(dir).map_err(|source| StartError::Data { path: dir.clone(), source })?;
    let lock = lock(dir)?;
    let mut opened = Opened::open(&config).await?;
    let engine = Arc::clone(&opened.engine);
    if config.redis.is_none() {
        // An index in this process is empty now; one that brokers share is the leader's to repair.
        engine.reconcile().await?;
    }

    let listen = |address: SocketAddr| async move {
        let bound = TcpListener::bind(address).await.and_then(|l| l.local_addr().map(|a| (l, a)));
        bound.map_err(|source| StartError::Listen { address, source })
    };
    let (public_listener, public_address) = listen(config.public).await?;
    let (worker_listener, worker_address) = listen(config.worker).await?;
    let metrics_listener = match config.metrics {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let control_listener = match config.control {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    engine.look_at_cluster().await?;
    let poster =
        Poster::new(config.webhooks.clone(), Arc::clone(&config.resolver)).map_err(StartError::Webhooks)?;
    let tls = worker_tls(&opened.ca, &config, worker_address)?;
    let keeper = config
        .audit
        .as_ref()
        .map(|audit| Keeper::open(&audit.checkpoints, &audit.key).map(|keeper| (keeper, audit.interval)))
        .transpose()?;

    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let limits = serve::Limits { connections: config.public_connections, ..serve::Limits::default() };
    let public_routes =
        public::router(Arc::clone(&engine), config.extra_routes, config.origins, stop.clone());
    // On the caller's threads.
    let here = Lanes::default();
    tasks.spawn(serve::run(public_listener, None, public_routes, limits, here.clone(), stop.clone()));
    let enrolment = Arc::new(Enrolment::new(config.pods.clone()));
    let worker_routes = worker::router(Arc::clone(&engine), Arc::clone(&opened.ca), Arc::clone(&enrolment));
    // A supervisor keeps its connection over a long encode.
    let worker_limits = serve::Limits {
        connections: config.worker_connections,
        head: Duration::from_secs(90),
        age: config.connection_age,
        ..limits
    };
    let (tls_of_workers, lanes) = (Some(tls.clone()), config.lanes);
    tasks.spawn(serve::run(
        worker_listener,
        tls_of_workers,
        worker_routes,
        worker_limits,
        lanes,
        stop.clone(),
    ));
    let mut control_address = None;
    if let Some((listener, address)) = control_listener {
        control_address = Some(address);
        let routes = control::router(Arc::clone(&engine), Arc::clone(&opened.ca), enrolment);
        let limits = serve::Limits { connections: 64, ..worker_limits };
        tasks.spawn(serve::run(listener, Some(tls), routes, limits, here.clone(), stop.clone()));
    }
    let mut metrics_address = None;
    if let Some((listener, address)) = metrics_listener {
        metrics_address = Some(address);
        let routes = metrics::router(Arc::clone(&engine));
        let limits = serve::Limits { connections: 16, ..limits };
        tasks.spawn(serve::run(listener, None, routes, limits, here, stop.clone()));
    }
    tasks.spawn(sender::run(Arc::clone(&engine), poster, stop.clone()));
    tasks.spawn(lookout(Arc::clone(&engine), stop.clone()));
    if let Some((keeper, interval)) = keeper {
        tasks.spawn(checkpoints(Arc::clone(&engine), keeper, interval, stop.clone()));
    }
    tasks.spawn(arrivals(Arc::clone(&engine), stop.clone()));
    tasks.spawn(sweeping(Arc::clone(&engine), config.retention, stop.clone()));
    tasks.spawn(orphans(Arc::clone(&engine), config.orphans, stop.clone()));
    tasks.spawn(housekeeping(engine, config.redis.is_some(), stop.clone()));
    let (mut export, stop_export) = (JoinSet::new(), CancellationToken::new());
    if let Some(Export { queue, waiting, sender }) = opened.export.take() {
        let instance = opened.engine.name().to_owned();
        export.spawn(otlp::queue::run(queue, waiting, sender, instance, stop_export.clone()));
    }
    Ok(Running {
        opened,
        public: public_address,
        worker: worker_address,
        metrics: metrics_address,
        control: control_address,
        stop,
        tasks,
        export,
        stop_export,
        grace: config.grace,
        _lock: lock,
    })
}

impl Running {
    /// Where the public API listens.
    pub const fn public_addr(&self) -> SocketAddr {
        self.public
    }

    /// Where the worker API listens.
    pub const fn worker_addr(&self) -> SocketAddr {
        self.worker
    }

    /// Where the metrics are.
    pub const fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Where the control API listens.
    pub const fn control_addr(&self) -> Option<SocketAddr> {
        self.control
    }

    /// What the broker does.
    pub const fn engine(&self) -> &Arc<Engine> {
        &self.opened.engine
    }

    /// The tenant of that name, made where there is none.
    ///
    /// # Errors
    /// The store failed.
    pub async fn ensure_tenant(&self, name: &str) -> Result<TenantId, AdminError> {
        Ok(self.opened.engine.ensure_tenant(name).await?)
    }

    /// Makes an API key; this is the only time it is seen.
    ///
    /// # Errors
    /// No randomness, or the store failed.
    pub async fn create_api_key(&self, tenant: TenantId, label: &str) -> Result<String, AdminError> {
        Ok(self.opened.engine.create_api_key(tenant, label).await?)
    }

    /// Writes the file a worker joins with: mode 0600, whole or not at all.
    ///
    /// # Errors
    /// The store failed, or the file cannot be written.
    pub async fn write_join_file(&self, pool: &PoolName, path: &Path) -> Result<(), AdminError> {
        write_join_file(&self.opened, &reachable(self.worker).to_string(), pool, path).await
    }

    /// Stops leasing, says for the grace that it is not ready while everything is still answered, lets requests end, and closes.
    pub async fn shutdown(mut self) {
        self.opened.engine.drain();
        tokio::time::sleep(self.grace).await;
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.stop_export.cancel();
        while self.export.join_next().await.is_some() {}
        self.opened.close().await;
    }
}

/// A wildcard address is for listening only; this machine reaches it by loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv6() {
            Ipv6Addr::LOCALHOST.into()
        } else {
            Ipv4Addr::LOCALHOST.into()
        });
    }
    address
}

fn worker_tls(ca: &Ca, config: &Config, address: SocketAddr) -> Result<TlsAcceptor, StartError> {
    let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let mut names = Vec::new();
    for name in &config.worker_names {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name.clone()),
        }
    }
    if !address.ip().is_unspecified() && !addresses.contains(&address.ip()) {
        addresses.push(address.ip());
    }
    Ok(TlsAcceptor::from(Arc::new(ca.server_config(&names, &addresses)?)))
}

/// One broker for one folder: two would each expire the other's leases.
fn lock(dir: &Path) -> Result<std::fs::File, StartError> {
    let path = dir.join("lock");
    let failed = |source| StartError::Data { path: path.clone(), source };
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::InUse(dir.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn capability_key(path: &Path) -> Result<[u8; 32], StartError> {
    let failed = |reason: String| StartError::Key { path: path.to_owned(), reason };
    match std::fs::read(path) {
        Ok(bytes) => bytes.try_into().map_err(|_| failed("it does not have 32 bytes".into())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let key = secret::random().map_err(|_| failed("the system has no randomness".into()))?;
            ca::write_private(path, &key).map_err(|e| failed(e.to_string()))?;
            Ok(key)
        }
        Err(e) => Err(failed(e.to_string())),
    }
}

/// Looks at what jobs may wait for: beside the housekeeping, which must not wait for storage that hangs.
async fn lookout(engine: Arc<Engine>, stop: CancellationToken) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in 0_u64.. {
        tokio::select! { _ = second.tick() => {}, () = stop.cancelled() => return }
        let look = async {
            if n.is_multiple_of(3) {
                engine.look_at_storage().await;
            }
            engine.look_at_cluster().await?;
            if n.is_multiple_of(2) {
                engine.enforce_bans().await?;
            }
            engine.look_around(n.is_multiple_of(2)).await
        };
        tokio::select! {
            looked = look => if let Err(e) = looked {
                tracing::warn!(error = %e, "cannot look at what jobs wait for");
            },
            () = stop.cancelled() => return,
        }
    }
}

/// Signs the heads of the audit log's chains, where they have moved: one broker for all, and each of them what it has seen. A last
/// time at the end.
async fn checkpoints(engine: Arc<Engine>, keeper: Keeper, interval: Duration, stop: CancellationToken) {
    let mut leader = Leadership::new("checkpoints");
    let mut keeper = Some(keeper);
    let mut due = Instant::now();
    let mut stand = tokio::time::interval(TICK.saturating_mul(STAND_EVERY));
    stand.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let ends = tokio::select! { _ = stand.tick() => false, () = stop.cancelled() => true };
        let led = if ends { leader.holds(&engine).await } else { leader.stand(&engine).await };
        if led.is_err() || !leader.holds(&engine).await.unwrap_or(false) {
            if ends {
                return;
            }
            continue;
        }
        if ends || due <= Instant::now() {
            match sign(&engine, &mut keeper).await {
                Ok(()) => due = after(interval),
                Err(error) => tracing::error!(error, "the audit log's heads are not signed"),
            }
        }
        if ends {
            leader.resign(&engine).await;
            return;
        }
    }
}

async fn sign(engine: &Engine, keeper: &mut Option<Keeper>) -> Result<(), String> {
    let heads = engine.store().heads_to_sign().await.map_err(|e| e.to_string())?;
    let (Some(heads), Some(mut used)) = (heads, keeper.take()) else { return Ok(()) };
    let kept = tokio::task::spawn_blocking(move || {
        let kept = used.keep(heads).map(drop);
        (used, kept)
    });
    let (used, kept) = kept.await.map_err(|e| e.to_string())?;
    *keeper = Some(used);
    kept.map_err(|e| e.to_string())
}

/// What each broker does for itself, and what only the one that leads does for all.
async fn housekeeping(engine: Arc<Engine>, shared_index: bool, stop: CancellationToken) {
    let mut leader = Leadership::new("housekeeping");
    let mut tick = tokio::time::interval(TICK);
    let mut reconcile = Instant::now();
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ticks = 0_u32;
    loop {
        let (what, result) = tokio::select! {
            _ = tick.tick() => {
                ticks = ticks.wrapping_add(1);
                if ticks % STAND_EVERY == 1 {
                    ("lead", stand(&engine, &mut leader, &mut reconcile).await)
                } else {
                    ("tend to leases", tend(&engine, &leader).await)
                }
            },
            () = tokio::time::sleep_until(reconcile) => {
                let began = Instant::now();
                // Without a shared index every broker has its own, and each may lack what another put into its own.
                let led = !shared_index || leader.holds(&engine).await.unwrap_or(false);
                let result = if led { engine.reconcile().await.map(drop) } else { Ok(()) };
                // A long queue is not compared all the time.
                reconcile = after(RECONCILE.max(began.elapsed().saturating_mul(20)));
                ("reconcile the queue", result)
            }
            () = stop.cancelled() => {
                leader.resign(&engine).await;
                return;
            }
        };
        if let Err(e) = result {
            tracing::error!(error = %e, "cannot {what}");
        }
    }
}

/// What waits for storage, and so for any tenant's own: beside the rest, which must not. One broker does it for all.
async fn sweeping(engine: Arc<Engine>, retention: Option<Duration>, stop: CancellationToken) {
    let mut leader = Leadership::new("sweeping");
    let mut stand = tokio::time::interval(TICK.saturating_mul(STAND_EVERY));
    let (mut sweep, mut retain) = (tokio::time::interval(SWEEP), tokio::time::interval(RETAIN));
    for timer in [&mut stand, &mut sweep, &mut retain] {
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    }
    loop {
        // First the lead, which comes with the first sweep of all.
        let work = async {
            tokio::select! {
                biased;
                _ = stand.tick() => ("lead the sweeps", leader.stand(&engine).await.map(drop)),
                _ = sweep.tick() => ("sweep", sweep_all(&engine, &leader).await),
                _ = retain.tick() => ("delete what is not kept any more", retain_all(&engine, &leader, retention).await),
            }
        };
        let done = tokio::select! { done = work => Some(done), () = stop.cancelled() => None };
        let Some((what, result)) = done else {
            leader.resign(&engine).await;
            return;
        };
        if let Err(e) = result {
            tracing::error!(error = %e, "cannot {what}");
        }
    }
}

/// Looks at what has arrived in tenants' own storage, by their rules: beside the rest, which must not wait for it. One broker does it for
/// all, and goes on standing for it while it looks.
async fn arrivals(engine: Arc<Engine>, stop: CancellationToken) {
    let mut leader = Leadership::new("arrivals");
    let mut stand = tokio::time::interval(TICK.saturating_mul(STAND_EVERY));
    stand.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! { _ = stand.tick() => {}, () = stop.cancelled() => break }
        if let Err(e) = leader.stand(&engine).await {
            tracing::error!(error = %e, "cannot lead the looks at what has arrived");
        }
        let Some(fence) = leader.fence() else { continue };
        tokio::select! {
            done = leader.standing(&engine, &mut stand, engine.look_at_arrivals(&fence)) => if let Err(e) = done {
                tracing::error!(error = %e, "cannot look at what has arrived");
            },
            () = stop.cancelled() => break,
        }
    }
    leader.resign(&engine).await;
}

/// Looks for files that no row knows: beside the sweeps, since all that is stored is gone through, and for as long as that takes. One
/// broker does it for all: when it has come to lead, for whatever a crash left over, and then again and again.
async fn orphans(engine: Arc<Engine>, interval: Duration, stop: CancellationToken) {
    let mut leader = Leadership::new("orphans");
    let mut stand = tokio::time::interval(TICK.saturating_mul(STAND_EVERY));
    stand.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut due = Instant::now();
    loop {
        tokio::select! { _ = stand.tick() => {}, () = stop.cancelled() => break }
        match leader.stand(&engine).await {
            Ok(true) => due = Instant::now(),
            Ok(false) => {}
            Err(e) => tracing::error!(error = %e, "cannot lead the search for files that no row knows"),
        }
        let Some(fence) = leader.fence().filter(|_| due <= Instant::now()) else { continue };
        let done = tokio::select! {
            done = leader.standing(&engine, &mut stand, engine.sweep_orphans(Some(&fence))) => done,
            () = stop.cancelled() => break,
        };
        match done {
            Ok(swept) => {
                tracing::debug!(?swept, "files that no row knew");
                due = after(interval);
            }
            // Whoever leads now begins anew, be it this one.
            Err(OrphansError::Deposed) => {}
            Err(e) => {
                tracing::error!(error = %e, "cannot look for files that no row knows");
                due = after(interval.min(ORPHANS_AGAIN));
            }
        }
    }
    leader.resign(&engine).await;
}

fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now)
}

async fn stand(engine: &Engine, leader: &mut Leadership, reconcile: &mut Instant) -> Result<(), StoreError> {
    if leader.stand(engine).await? {
        // What the one before did not get to do.
        *reconcile = Instant::now();
    }
    engine.hear_of_ends().await
}

/// Each of these stands on its own: one that fails keeps no other from its turn.
async fn tend(engine: &Engine, leader: &Leadership) -> Result<(), StoreError> {
    if !leader.holds(engine).await? {
        return Ok(());
    }
    let expired = engine.expire().await.map(drop);
    let relayed = engine.relay().await.map(drop);
    let sequenced = engine.sequence().await.map(drop);
    let repaired = engine.reconcile_if_lost().await;
    expired.and(relayed).and(sequenced).and(repaired)
}

async fn retain_all(
    engine: &Engine,
    leader: &Leadership,
    retention: Option<Duration>,
) -> Result<(), StoreError> {
    if leader.holds(engine).await? {
        engine.retain(retention).await?;
    }
    Ok(())
}

async fn sweep_all(engine: &Engine, leader: &Leadership) -> Result<(), StoreError> {
    if !leader.holds(engine).await? {
        return Ok(());
    }
    let prepared = engine.store().prepare().await;
    engine.sweep().await.map(drop).and(prepared)
}
