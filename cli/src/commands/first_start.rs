//! What an installation in a cluster starts with and a chart cannot make: the broker's identity, the pools' join files, an API
//! key. Each is a Secret, made once; what is there is left as it is, so that this can be broken off and run again at any time.
//!
//! The identity comes first and is read back, so that everything after it belongs to the one that the broker gets. A run that
//! is broken off may leave a token or key in the database that nobody has ever seen; it opens nothing.

use crate::args::FirstStart;
use crate::exit::{Exit, Failed};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use mpegflow_broker::ca::{make_private_dir, write_private};
use mpegflow_broker::embedded::{self, Config, Opened};
use mpegflow_broker::store::postgres::{DatabaseConfig, UrlSource};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Who owns the Secrets' fields.
const MANAGER: &str = "mpegflow-first-start";
/// Keys of the identity, and where the broker's data folder has them.
const IDENTITY: [(&str, &str); 3] =
    [("ca.key", "ca/ca.key"), ("ca.pem", "ca/ca.pem"), ("capability.key", "capability.key")];

type Data = BTreeMap<String, Vec<u8>>;

/// Makes what is not there.
pub(crate) async fn run(args: &FirstStart) -> Result<(), Failed> {
    let secrets = Secrets::connect(&args.namespace).await?;
    make_private_dir(&args.data.join("ca")).map_err(|e| Failed::file("make", &args.data, &e))?;
    let found = secrets.find(&args.identity).await?;
    if let Some(data) = &found {
        restore(&args.identity, data, &args.data)?;
    }
    let mut opened = open(args).await?;
    if found.is_none() {
        let data = IDENTITY.iter().map(|(key, file)| Ok(((*key).to_owned(), read(&args.data.join(file))?)));
        if let Some(theirs) = secrets.make(&args.identity, data.collect::<Result<_, Failed>>()?).await? {
            opened.close().await;
            restore(&args.identity, &theirs, &args.data)?;
            opened = open(args).await?;
        }
    }
    let done = grant(args, &secrets, &opened).await;
    opened.close().await;
    done
}

/// The Secrets for those who talk to the broker.
async fn grant(args: &FirstStart, secrets: &Secrets, opened: &Opened) -> Result<(), Failed> {
    for join in &args.join {
        if secrets.find(&join.secret).await?.is_some() {
            continue;
        }
        let path = args.data.join("join.json");
        let written = embedded::write_join_file(opened, &args.broker, &join.pool, &path).await;
        written.map_err(|e| failed("join_token", "cannot make a join file", &e))?;
        secrets.make(&join.secret, Data::from([("join.json".to_owned(), read(&path)?)])).await?;
    }
    if secrets.find(&args.api_key).await?.is_none() {
        let engine = opened.engine();
        let no_tenant = |e| failed("tenant", &format!("cannot make the tenant {}", args.tenant), &e);
        let tenant = engine.ensure_tenant(&args.tenant).await.map_err(no_tenant)?;
        let key = engine.create_api_key(tenant, "first start").await;
        let key = key.map_err(|e| failed("api_key", "cannot make an API key", &e))?;
        secrets.make(&args.api_key, Data::from([("api-key".to_owned(), key.into_bytes())])).await?;
    }
    Ok(())
}

async fn open(args: &FirstStart) -> Result<Opened, Failed> {
    let mut config = Config::new(&args.data);
    let url = match (&args.database_url, &args.database_url_file) {
        (Some(url), _) => Some(UrlSource::Plain(url.clone())),
        (None, file) => file.clone().map(UrlSource::File),
    };
    config.database = url.map(|url| DatabaseConfig {
        password_file: args.database_password_file.clone(),
        connections: args.database_connections,
        ..DatabaseConfig::new(url)
    });
    Opened::open(&config).await.map_err(|e| failed("database", "cannot open the broker's data", &e))
}

/// Puts an identity where the broker's library finds it.
fn restore(secret: &str, data: &Data, to: &Path) -> Result<(), Failed> {
    for (key, file) in IDENTITY {
        let Some(bytes) = data.get(key) else {
            let what = format!("the Secret {secret} has no key {key:?}, so it is no identity of a broker");
            return Err(Failed::new(Exit::BadInput, "bad_identity", what)
                .help("name another Secret, or put the key in; deleted, it is made anew and every worker joins again"));
        };
        let path = to.join(file);
        write_private(&path, bytes).map_err(|e| Failed::file("write", &path, &e))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Failed> {
    std::fs::read(path).map_err(|e| Failed::file("read", path, &e))
}

fn failed(code: &str, what: &str, error: &dyn std::error::Error) -> Failed {
    Failed::new(Exit::Failed, code, format!("{what}: {}", mpegflow_protocol::text::chain(error)))
}

/// The Secrets of a namespace, by name alone.
struct Secrets {
    api: Api<Secret>,
    namespace: String,
}

impl Secrets {
    async fn connect(namespace: &str) -> Result<Self, Failed> {
        let no_cluster = |e: String| {
            Failed::new(Exit::Unreachable, "no_cluster", format!("cannot find the cluster: {e}")).help(
                "it is the one of KUBECONFIG, or the one this pod runs in with its account's token mounted",
            )
        };
        let config = kube::Config::infer().await.map_err(|e| no_cluster(e.to_string()))?;
        let client = kube::Client::try_from(config).map_err(|e| no_cluster(e.to_string()))?;
        Ok(Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned() })
    }

    async fn find(&self, name: &str) -> Result<Option<Data>, Failed> {
        let found = self.api.get_opt(name).await.map_err(|e| self.refused("read", name, &e))?;
        Ok(found.map(|secret| {
            let data = secret.data.unwrap_or_default();
            data.into_iter().map(|(key, ByteString(value))| (key, value)).collect()
        }))
    }

    /// Makes a Secret that was not there a moment ago. Applied, not posted: for that a Role can name the Secret, so that the
    /// right to create is one to create this. `Some` is what somebody else has made meanwhile.
    async fn make(&self, name: &str, data: Data) -> Result<Option<Data>, Failed> {
        let mut secret = Secret::default();
        secret.metadata.name = Some(name.to_owned());
        let labels = [("app.kubernetes.io/part-of", "mpegflow"), ("app.kubernetes.io/managed-by", MANAGER)];
        secret.metadata.labels = Some(labels.map(|(key, value)| (key.into(), value.into())).into());
        secret.data = Some(data.into_iter().map(|(key, value)| (key, ByteString(value))).collect());
        match self.api.patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(&secret)).await {
            Ok(_) => {
                let _ = writeln!(std::io::stderr(), "made the Secret {}/{name}", self.namespace);
                Ok(None)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => self.find(name).await,
            Err(e) => Err(self.refused("make", name, &e)),
        }
    }

    fn refused(&self, verb: &str, name: &str, error: &kube::Error) -> Failed {
        let what = format!("cannot {verb} the Secret {}/{name}: {error}", self.namespace);
        Failed::new(Exit::Failed, "secret", what)
            .help("the account needs get, create and patch on secrets of these names")
    }
}

/// A pool, and the Secret for its join file.
#[derive(Debug, Clone)]
pub(crate) struct JoinSecret {
    pool: mpegflow_protocol::ids::PoolName,
    secret: String,
}

impl std::str::FromStr for JoinSecret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (pool, secret) = text.split_once('=').ok_or("write POOL=SECRET")?;
        let pool = pool.parse().map_err(|e: mpegflow_protocol::ids::BadPoolName| e.to_string())?;
        if secret.is_empty() {
            Err("write POOL=SECRET".into())
        } else {
            Ok(Self { pool, secret: secret.into() })
        }
    }
}

/// The default data folder: private to this run, and of no use after it.
pub(crate) fn scratch() -> PathBuf {
    std::env::temp_dir().join("mpegflow-first-start")
}
