//! How to reach Redis: read again for each new connection, so that a changed password or address needs no restart.

use super::url::{Kind, RedisUrl, RedisUrlError};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, Pipeline, RedisFuture, RedisResult, TlsCertificates, TlsMode, Value,
};
use std::path::PathBuf;
use std::time::Duration;

/// Connecting, with TLS and asking Sentinels, may take this long.
const CONNECT: Duration = Duration::from_secs(2);
/// An answer may take this long.
const ANSWER: Duration = Duration::from_secs(1);

/// Where the URL comes from.
#[derive(Debug, Clone)]
pub enum RedisUrlSource {
    /// From the command line or a configuration: it may hold no password.
    Plain(RedisUrl),
    /// From a file that may hold a password too. Read again for each new connection.
    File(PathBuf),
}

/// How to reach Redis.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// Where it is.
    pub url: RedisUrlSource,
    /// A file with the password and nothing else.
    pub password_file: Option<PathBuf>,
    /// A file with the Sentinels' own password, where they have one.
    pub sentinel_password_file: Option<PathBuf>,
    /// PEM file with the authorities that TLS trusts, in place of the machine's.
    pub ca_file: Option<PathBuf>,
    /// What every key begins with: brokers of different installations on one server must differ in it.
    pub prefix: String,
}

impl RedisConfig {
    /// From a URL, with keys that begin with `mpegflow`.
    pub fn new(url: RedisUrlSource) -> Self {
        Self {
            url,
            password_file: None,
            sentinel_password_file: None,
            ca_file: None,
            prefix: "mpegflow".into(),
        }
    }

    fn read(&self) -> Result<Read, RedisUrlError> {
        let file = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| RedisUrlError::File { path: path.clone(), source })
        };
        // An editor's newline is no part of it.
        let secret = |path: &PathBuf| Ok(file(path)?.trim_end_matches(['\n', '\r']).to_owned());
        let mut url = match &self.url {
            RedisUrlSource::Plain(url) => url.clone(),
            RedisUrlSource::File(path) => RedisUrl::parse(file(path)?.trim())?,
        };
        if let Some(path) = &self.password_file {
            url.set_password(&secret(path)?);
        }
        let sentinel_password = self.sentinel_password_file.as_ref().map(secret).transpose()?;
        let ca = self.ca_file.as_ref().map(file).transpose()?.map(String::into_bytes);
        Ok(Read { url, sentinel_password, ca })
    }

    /// Checks that everything can be read, without connecting.
    ///
    /// # Errors
    /// A file is missing or does not hold what it should.
    pub fn check(&self) -> Result<(), RedisUrlError> {
        self.read().map(drop)
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Connection, ConnectError> {
        let read = self.read()?;
        Ok(tokio::time::timeout(CONNECT, read.connect()).await.map_err(|_| ConnectError::Slow)??)
    }

    /// A new connection that hears what is published.
    pub(super) async fn listen(&self) -> Result<redis::aio::PubSub, ConnectError> {
        let read = self.read()?;
        Ok(tokio::time::timeout(CONNECT, read.listen()).await.map_err(|_| ConnectError::Slow)??)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(transparent)]
    Address(#[from] RedisUrlError),
    #[error("no connection within {CONNECT:?}")]
    Slow,
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
}

/// The configuration as its files hold it now.
struct Read {
    url: RedisUrl,
    sentinel_password: Option<String>,
    ca: Option<Vec<u8>>,
}

impl Read {
    fn certificates(&self) -> Option<TlsCertificates> {
        let wanted = self.url.is_tls().then(|| {
            // The library takes the process's provider; whoever installed one before stays.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        });
        wanted.map(|()| TlsCertificates { client_tls: None, root_cert: self.ca.clone() })
    }

    fn client(&self, node: usize) -> RedisResult<Client> {
        let node = self.url.nodes.get(node).or(self.url.nodes.first());
        let node = node.ok_or((redis::ErrorKind::InvalidClientConfig, "no server is named"))?.clone();
        match self.certificates() {
            Some(certificates) => Client::build_with_tls(node, certificates),
            None => Client::open(node),
        }
    }

    /// The server that is the master now, as the first Sentinel that answers says.
    async fn master(&self, name: &str) -> RedisResult<Client> {
        let addresses = self.url.nodes.iter().map(|node| node.addr().clone());
        let mut builder = SentinelClientBuilder::new(addresses, name, SentinelServerType::Master)?;
        if let Some(node) = self.url.nodes.first() {
            if let Some(user) = node.redis_settings().username() {
                builder = builder.set_client_to_redis_username(user);
            }
            if let Some(password) = node.redis_settings().password() {
                builder = builder.set_client_to_redis_password(password);
            }
        }
        if let Some(password) = &self.sentinel_password {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if let Some(certificates) = self.certificates() {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates);
        }
        builder.build()?.async_get_client().await
    }

    async fn connect(&self) -> RedisResult<Connection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER));
        Ok(match &self.url.kind {
            Kind::Single => {
                Connection::One(self.client(0)?.get_multiplexed_async_connection_with_config(&config).await?)
            }
            Kind::Sentinel { master } => Connection::One(
                self.master(master).await?.get_multiplexed_async_connection_with_config(&config).await?,
            ),
            Kind::Cluster => {
                let mut builder = ClusterClient::builder(self.url.nodes.clone())
                    .connection_timeout(CONNECT)
                    .response_timeout(ANSWER)
                    .overall_response_timeout(Some(CONNECT))
                    .retries(2);
                if let Some(certificates) = self.certificates() {
                    builder = builder.certs(certificates);
                }
                Connection::Cluster(builder.build()?.get_async_connection().await?)
            }
        })
    }

    async fn listen(&self) -> RedisResult<redis::aio::PubSub> {
        match &self.url.kind {
            Kind::Sentinel { master } => self.master(master).await?.get_async_pubsub().await,
            // What is published on one node of a cluster is heard on each.
            Kind::Single | Kind::Cluster => {
                let mut last = None;
                for node in 0..self.url.nodes.len() {
                    match self.client(node)?.get_async_pubsub().await {
                        Ok(heard) => return Ok(heard),
                        Err(e) => last = Some(e),
                    }
                }
                Err(last
                    .unwrap_or_else(|| (redis::ErrorKind::InvalidClientConfig, "no server is named").into()))
            }
        }
    }
}

/// A connection that many calls share.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(one) => one.req_packed_command(cmd),
            Self::Cluster(cluster) => cluster.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(one) => one.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(one) => one.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}
