//! What the operator is told at its start, checked.

use std::time::Duration;

/// What all pools have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The broker that workers work for.
    pub broker: BrokerService,
    /// Where the depth of a pool's queue is read; without it no ScaledObject is made.
    pub depth: Option<Depth>,
    /// The broker's control API; without it the broker is told nothing, and nobody can say who is busy.
    pub control: Option<crate::control::Settings>,
    /// Addresses that no worker may reach, each by what is there: the API server's, and what the administrator adds.
    pub unreachable: Vec<(String, std::net::SocketAddr)>,
    /// Canaries that there are at once, of all pools together.
    pub canaries: u16,
    /// Pools that are worked on at once.
    pub concurrency: u16,
    /// How often the operator looks which kinds of policies and scalers the cluster knows.
    pub discover_every: Duration,
}

/// The Service of the broker's worker API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerService {
    /// Its namespace.
    pub namespace: String,
    /// Its name. Its port is the one named `worker-api`.
    pub name: String,
    /// The name in the broker's certificate; workers find it by a host alias, without DNS.
    pub server_name: String,
    /// The CA of that certificate, PEM.
    pub ca: String,
    /// Audience of the tokens by which workers prove who they are.
    pub audience: String,
}

/// The Redis that holds the depth of each pool's queue: a key with an entry for every task that waits or runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depth {
    /// `host:port`, as KEDA reaches it.
    pub address: String,
    /// Key of a pool's depth; `{pool}` stands for its name.
    pub key: String,
    /// Whether KEDA speaks TLS to it.
    pub tls: bool,
    /// The ClusterTriggerAuthentication with the credential, `{pool}` in its name standing for the pool's; none for a Redis
    /// without one. It is the administrator's: the
    /// operator reads no Secret, and no tenant can read what KEDA reads.
    pub authentication: Option<String>,
}

/// The field manager of all that the operator writes, and the value of `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "mpegflow-operator";

impl Default for BrokerService {
    fn default() -> Self {
        Self {
            namespace: "mpegflow".into(),
            name: "mpegflow-broker".into(),
            server_name: "mpegflow-broker".into(),
            ca: String::new(),
            audience: "mpegflow-broker".into(),
        }
    }
}

impl Settings {
    /// Settings with the defaults for all but the broker.
    pub fn new(broker: BrokerService) -> Self {
        Self {
            broker,
            depth: None,
            control: None,
            unreachable: Vec::new(),
            canaries: 32,
            concurrency: 8,
            discover_every: Duration::from_secs(30),
        }
    }
}
