//! The resolved configuration: what the keys mean together. It does no I/O but for [`Resolved::look_at_files`].

use super::keys::Raw;
use super::layers::Slot;
use super::problem::Problems;
use super::setting::{AccountOfPool, LogFormat, Sse, TokenAlgorithm, Traceparent};
use crate::audit::keep::Keeper;
use crate::embedded::{AuditConfig, Config};
use crate::engine::{Quotas, Rate};
use crate::enrol::Account;
use crate::http::cors::Origins;
use crate::objects::own::Setup;
use crate::objects::s3::{self, Connections, Encryption, S3Config, S3Objects};
use crate::oidc::{Algorithm, Oidc, OidcConfig};
use crate::otlp::{self, OtlpConfig};
use crate::plan::estimate::Caps;
use crate::queue::redis::{RedisConfig, RedisUrlSource};
use crate::scopes::Scopes;
use crate::store::postgres::{DatabaseConfig, UrlSource};
use crate::trace::Incoming;
use crate::webhooks::post::{Poster, SystemResolver};
use crate::webhooks::{self, address::Ports};
use mpegflow_protocol::ids::PoolName;
use mpegflow_protocol::text::chain;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where objects are kept.
#[derive(Debug, Clone)]
pub enum Objects {
    /// Below the data folder.
    Folder,
    /// In a bucket.
    Bucket(Box<S3Config>),
}

/// How pods enrol.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    /// What their tokens have to be for.
    pub audience: String,
    /// The account whose pods are the operator.
    pub operator: Option<Account>,
    /// Accounts of pools that nobody pushes.
    pub accounts: BTreeMap<Account, PoolName>,
    /// How the API server is reached.
    pub kubeconfig: Option<PathBuf>,
}

/// What the broker runs with.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The data folder.
    pub data: PathBuf,
    /// The folder that replicas share.
    pub identity: Option<PathBuf>,
    /// How the log is written.
    pub log: LogFormat,
    /// Where the public API listens.
    pub public: SocketAddr,
    /// Connections to the public API at once.
    pub public_connections: usize,
    /// How long it goes on answering after it was told to end.
    pub grace: Duration,
    /// Where the worker API listens.
    pub worker: SocketAddr,
    /// More names of the worker API.
    pub worker_names: Vec<String>,
    /// How long a lease lives.
    pub lease: Duration,
    /// Connections of workers at once.
    pub worker_connections: usize,
    /// How long a worker's connection is used.
    pub connection_age: Duration,
    /// Where the metrics are.
    pub metrics: Option<SocketAddr>,
    /// Where traces go; nowhere where there is none.
    pub otlp: Option<OtlpConfig>,
    /// How pods enrol.
    pub kubernetes: Option<Kubernetes>,
    /// Where the control API listens.
    pub control: Option<SocketAddr>,
    /// PostgreSQL; a file in the data folder where there is none.
    pub database: Option<DatabaseConfig>,
    /// Where checkpoints of the audit log are kept; nowhere where there is none.
    pub audit: Option<AuditConfig>,
    /// Redis; an index in the broker where there is none.
    pub redis: Option<RedisConfig>,
    /// What keys in Redis begin with.
    pub redis_prefix: String,
    /// Where objects are kept.
    pub objects: Objects,
    /// What tenants' own storage may be.
    pub tenant_storage: Setup,
    /// What a tenant may have.
    pub quotas: Quotas,
    /// Whose tokens are taken beside API keys, and what each of them may do.
    pub oidc: Option<(OidcConfig, Scopes)>,
    /// How long a tenant's data is kept; for ever where there is none.
    pub retention: Option<Duration>,
    /// How often storage is searched for files that no row knows.
    pub orphans: Duration,
    /// How many requests a tenant may make.
    pub rate: Rate,
    /// Whose pages may call the public API from a browser.
    pub origins: Origins,
    /// Where webhooks may be.
    pub webhooks: webhooks::Policy,
}

impl Resolved {
    /// What the raw configuration means.
    ///
    /// `None` where something is wrong; all of it is in `problems` then.
    pub fn from_raw(raw: &Raw, problems: &mut Problems) -> Option<Self> {
        let database = database(raw, problems);
        let redis = redis(raw, problems);
        let objects = objects(raw, problems);
        let tenant_storage = tenant_storage(raw, objects.as_ref(), problems);
        let kubernetes = kubernetes(raw, problems);
        let oidc = oidc(raw, problems);
        let audit = audit(raw, database.is_some(), problems);
        let otlp = otlp(raw, problems);
        if !problems.is_empty() {
            return None;
        }
        Some(Self {
            data: raw.data.get()?.clone(),
            identity: raw.identity.get().cloned(),
            log: *raw.log_format.get()?,
            public: *raw.public_listen.get()?,
            public_connections: usize::try_from(raw.public_connections.get()?.0).ok()?,
            grace: raw.public_grace.get()?.0,
            worker: *raw.worker_listen.get()?,
            worker_names: raw.worker_names.get()?.clone(),
            lease: raw.worker_lease.get()?.0,
            worker_connections: usize::try_from(raw.worker_connections.get()?.0).ok()?,
            connection_age: raw.worker_connection_age.get()?.0,
            metrics: raw.metrics_listen.get().copied(),
            otlp,
            kubernetes,
            control: raw.control_listen.get().copied(),
            database,
            audit,
            oidc,
            redis,
            redis_prefix: raw.redis_prefix.get()?.0.clone(),
            objects: objects?,
            tenant_storage: tenant_storage?,
            retention: raw
                .retention_days
                .get()
                .map(|days| Duration::from_secs(days.0.saturating_mul(24 * 3_600))),
            orphans: raw.orphans_interval.get()?.0,
            rate: Rate {
                per_second: u32::try_from(raw.rate_requests_per_second.get()?.0).ok()?,
                burst: u32::try_from(raw.rate_burst.get()?.0).ok()?,
            },
            origins: Origins(raw.public_origins.get()?.as_slice().into()),
            webhooks: webhooks::Policy {
                allow_networks: raw.webhooks_allow_networks.get()?.clone(),
                ports: Ports::new(raw.webhooks_ports.get()?.iter().map(|range| range.0.clone()).collect()),
                allow_http: *raw.webhooks_allow_http.get()?,
                ca_file: raw.webhooks_ca.get().cloned(),
            },
            quotas: Quotas {
                unfinished_jobs: u32::try_from(raw.quotas_unfinished_jobs.get()?.0).ok()?,
                running_tasks: raw.quotas_running_tasks.get().and_then(|n| u32::try_from(n.0).ok()),
                unfinished_uploads: u32::try_from(raw.quotas_unfinished_uploads.get()?.0).ok()?,
                upload_bytes: raw.quotas_upload_bytes.get()?.0,
                caps: Caps {
                    output_minutes: small(raw.quotas_job_output_minutes.get().map(|n| n.0)),
                    core_seconds: small(raw.quotas_job_core_seconds.get().map(|n| n.0)),
                },
                minutes_per_day: small(raw.quotas_minutes_per_day.get().map(|n| n.0)),
            },
        })
    }

    /// Tries every file that is named and has to be there: whether it can be read and holds what it should. Connects to
    /// nothing, and says nothing of what secrets hold.
    pub fn look_at_files(&self, problems: &mut Problems) {
        if let Some(database) = &self.database
            && let Err(e) = database.read()
        {
            problems.add("database", chain(&e));
        }
        if let Some(redis) = &self.redis
            && let Err(e) = redis.check()
        {
            problems.add("redis", chain(&e));
        }
        if let Some((oidc, _)) = &self.oidc
            && let Err(e) = Oidc::new(oidc.clone())
        {
            problems.add("oidc.ca", chain(&e));
        }
        if let Some(otlp) = &self.otlp {
            if let Err(e) = otlp::Sender::new(otlp) {
                problems.add("otlp.ca", chain(&e));
            }
            if let Some(Err(e)) = otlp.headers_file.as_deref().map(otlp::headers) {
                problems.add("otlp.headers_file", e);
            }
        }
        if let Some(audit) = &self.audit
            && let Err(e) = Keeper::open(&audit.checkpoints, &audit.key)
        {
            problems.add("audit", chain(&e));
        }
        if let Err(e) = Poster::new(self.webhooks.clone(), Arc::new(SystemResolver)) {
            problems.add("webhooks.ca", chain(&e));
        }
        if let Objects::Bucket(bucket) = &self.objects
            && let Err(e) = S3Objects::look_at_files(bucket)
        {
            problems.add("s3", chain(&e));
        }
        let own = &self.tenant_storage;
        if let Err(e) = Connections::open(own.ca_file.as_deref()) {
            problems.add("tenant_storage.ca", chain(&e));
        }
        if let Some(dir) = &own.secrets
            && let Err(e) = std::fs::read_dir(dir)
        {
            problems.add("tenant_storage.secrets", chain(&e));
        }
        if let Some(file) = &own.credentials_file
            && let Err(e) = s3::look_at_credentials(file)
        {
            problems.add("tenant_storage.credentials", chain(&e));
        }
    }

    /// How the broker is started with it, but for the objects of a bucket, which have to be opened.
    pub fn embedded(&self) -> Config {
        let mut config = Config::new(self.data.clone());
        config.public = self.public;
        config.public_connections = self.public_connections;
        config.grace = self.grace;
        config.worker = self.worker;
        config.metrics = self.metrics;
        config.control = self.control;
        config.worker_names.clone_from(&self.worker_names);
        config.lease = self.lease;
        config.worker_connections = self.worker_connections;
        config.connection_age = self.connection_age;
        config.identity.clone_from(&self.identity);
        config.redis.clone_from(&self.redis);
        config.database.clone_from(&self.database);
        config.quotas = self.quotas;
        config.rate = self.rate;
        config.audit.clone_from(&self.audit);
        config.oidc.clone_from(&self.oidc);
        config.otlp.clone_from(&self.otlp);
        config.retention = self.retention;
        config.orphans = self.orphans;
        config.origins.clone_from(&self.origins);
        config.webhooks.clone_from(&self.webhooks);
        config.tenant_storage.clone_from(&self.tenant_storage);
        config
    }
}

fn small(n: Option<u64>) -> Option<u32> {
    n.and_then(|n| u32::try_from(n).ok())
}

fn place<T>(slot: &Slot<T>) -> String {
    slot.origin().map_or_else(String::new, ToString::to_string)
}

fn database(raw: &Raw, problems: &mut Problems) -> Option<DatabaseConfig> {
    let connections = raw.database_connections.get().and_then(|n| u32::try_from(n.0).ok()).unwrap_or(10);
    let url = match (raw.database_url.get(), raw.database_url_file.get()) {
        (Some(_), Some(_)) => {
            let text = "database.url and database.url_file are both given; leave one out";
            problems.add(place(&raw.database_url_file), text);
            return None;
        }
        (Some(url), None) => UrlSource::Plain(url.url().clone()),
        (None, Some(file)) => UrlSource::File(file.clone()),
        (None, None) => {
            if raw.database_password_file.is_given() {
                let text = "database.password_file needs database.url or database.url_file";
                problems.add(place(&raw.database_password_file), text);
            }
            return None;
        }
    };
    let password_file = raw.database_password_file.get().cloned();
    Some(DatabaseConfig { password_file, connections, ..DatabaseConfig::new(url) })
}

fn kubernetes(raw: &Raw, problems: &mut Problems) -> Option<Kubernetes> {
    let accounts = raw.kubernetes_accounts.get().into_iter().flatten();
    let accounts: Vec<_> =
        accounts.map(|AccountOfPool(account, pool)| (account.clone(), pool.clone())).collect();
    if let Some(slot) = raw.control_listen.is_given().then_some(&raw.control_listen)
        && !raw.kubernetes_operator.is_given()
    {
        problems.add(place(slot), "control.listen needs kubernetes.operator, the account of who may use it");
    }
    let Some(audience) = raw.kubernetes_audience.get() else {
        let mut alone = |given: bool, place: String, key: &str| {
            if given {
                problems.add(place, format!("{key} needs kubernetes.audience"));
            }
        };
        alone(raw.kubernetes_operator.is_given(), place(&raw.kubernetes_operator), "kubernetes.operator");
        alone(!accounts.is_empty(), place(&raw.kubernetes_accounts), "kubernetes.accounts");
        alone(
            raw.kubernetes_kubeconfig.is_given(),
            place(&raw.kubernetes_kubeconfig),
            "kubernetes.kubeconfig",
        );
        return None;
    };
    if audience.is_empty() || audience.starts_with("https://kubernetes.default") {
        let text = "kubernetes.audience has to be the broker's own: a token for the API server is no worker's to show";
        problems.add(place(&raw.kubernetes_audience), text);
    }
    let operator = raw.kubernetes_operator.get().cloned();
    let count = accounts.len();
    let accounts: BTreeMap<_, _> = accounts.into_iter().collect();
    if accounts.len() != count || operator.as_ref().is_some_and(|operator| accounts.contains_key(operator)) {
        let text = "kubernetes.accounts names an account twice, or the operator's";
        problems.add(place(&raw.kubernetes_accounts), text);
    }
    let kubeconfig = raw.kubernetes_kubeconfig.get().cloned();
    Some(Kubernetes { audience: audience.clone(), operator, accounts, kubeconfig })
}

fn oidc(raw: &Raw, problems: &mut Problems) -> Option<(OidcConfig, Scopes)> {
    let Some(issuer) = raw.oidc_issuer.get() else {
        for (given, place, key) in [
            (raw.oidc_audience.is_given(), place(&raw.oidc_audience), "oidc.audience"),
            (raw.oidc_jwks.is_given(), place(&raw.oidc_jwks), "oidc.jwks"),
            (raw.oidc_ca.is_given(), place(&raw.oidc_ca), "oidc.ca"),
        ] {
            if given {
                problems.add(place, format!("{key} needs oidc.issuer"));
            }
        }
        return None;
    };
    let Some(audience) = raw.oidc_audience.get().filter(|text| !text.is_empty()) else {
        let text =
            "oidc.issuer needs oidc.audience: tokens for any other service of the issuer would be taken";
        problems.add(place(&raw.oidc_issuer), text);
        return None;
    };
    let mut url = |text: &String, place: String, key: &str| {
        text.parse().map_err(|e| problems.add(place, format!("{key}: {e}"))).ok()
    };
    let issuer = url(issuer, place(&raw.oidc_issuer), "oidc.issuer");
    let jwks = raw.oidc_jwks.get().map(|text| url(text, place(&raw.oidc_jwks), "oidc.jwks"));
    let mut scopes = Vec::new();
    for word in raw.oidc_scopes.get()? {
        match word.parse::<Scopes>() {
            Ok(scope) => scopes.push(scope),
            Err(e) => problems.add(place(&raw.oidc_scopes), format!("oidc.scopes: `{word}` is {e}")),
        }
    }
    let jwks = match jwks {
        Some(None) => return None,
        Some(Some(url)) => Some(url),
        None => None,
    };
    let config = OidcConfig {
        issuer: issuer?,
        jwks,
        audience: audience.clone(),
        algorithm: match raw.oidc_algorithm.get()? {
            TokenAlgorithm::Rs256 => Algorithm::Rs256,
            TokenAlgorithm::Es256 => Algorithm::Es256,
        },
        tenant_claim: raw.oidc_tenant_claim.get()?.clone(),
        ca_file: raw.oidc_ca.get().cloned(),
    };
    Some((config, scopes.into_iter().collect()))
}

fn otlp(raw: &Raw, problems: &mut Problems) -> Option<OtlpConfig> {
    let Some(endpoint) = raw.otlp_endpoint.get() else {
        for (given, place, key) in [
            (raw.otlp_headers_file.is_given(), place(&raw.otlp_headers_file), "otlp.headers_file"),
            (raw.otlp_ca.is_given(), place(&raw.otlp_ca), "otlp.ca"),
            (raw.otlp_sample.is_given(), place(&raw.otlp_sample), "otlp.sample"),
            (raw.otlp_traceparent.is_given(), place(&raw.otlp_traceparent), "otlp.traceparent"),
        ] {
            if given {
                problems.add(place, format!("{key} needs otlp.endpoint"));
            }
        }
        return None;
    };
    let endpoint = endpoint.url();
    if raw.otlp_headers_file.is_given() && !endpoint.secret_is_safe() {
        let text = "otlp.headers_file needs an https:// endpoint: everybody between could read what it holds";
        problems.add(place(&raw.otlp_headers_file), text);
    }
    Some(OtlpConfig {
        endpoint: endpoint.clone(),
        headers_file: raw.otlp_headers_file.get().cloned(),
        ca_file: raw.otlp_ca.get().cloned(),
        share: *raw.otlp_sample.get()?,
        incoming: match raw.otlp_traceparent.get()? {
            Traceparent::Ignore => Incoming::Ignored,
            Traceparent::Link => Incoming::Linked,
            Traceparent::Parent => Incoming::Parent,
        },
    })
}

fn audit(raw: &Raw, chained: bool, problems: &mut Problems) -> Option<AuditConfig> {
    let (dir, key) = (raw.audit_checkpoints.get(), raw.audit_key.get());
    let given = if dir.is_some() { place(&raw.audit_checkpoints) } else { place(&raw.audit_key) };
    match (dir, key) {
        (None, None) => None,
        (Some(_), Some(_)) if !chained => {
            problems.add(given, "audit.checkpoints needs database.url or database.url_file: a file in the data folder has no chain");
            None
        }
        (Some(dir), Some(key)) => Some(AuditConfig {
            checkpoints: dir.clone(),
            key: key.clone(),
            interval: raw.audit_interval.get()?.0,
        }),
        _ => {
            problems.add(given, "audit.checkpoints and audit.key need each other");
            None
        }
    }
}

fn redis(raw: &Raw, problems: &mut Problems) -> Option<RedisConfig> {
    let url = match (raw.redis_url.get(), raw.redis_url_file.get()) {
        (Some(_), Some(_)) => {
            let text = "redis.url and redis.url_file are both given; leave one out";
            problems.add(place(&raw.redis_url_file), text);
            return None;
        }
        (Some(url), None) => RedisUrlSource::Plain(url.url().clone()),
        (None, Some(file)) => RedisUrlSource::File(file.clone()),
        (None, None) => {
            for (slot, key) in [
                (&raw.redis_password_file, "redis.password_file"),
                (&raw.redis_sentinel_password_file, "redis.sentinel_password_file"),
                (&raw.redis_ca, "redis.ca"),
            ] {
                if slot.is_given() {
                    problems.add(place(slot), format!("{key} needs redis.url or redis.url_file"));
                }
            }
            return None;
        }
    };
    if raw.database_url.get().is_none() && raw.database_url_file.get().is_none() {
        let given = if raw.redis_url.is_given() { place(&raw.redis_url) } else { place(&raw.redis_url_file) };
        let text = "brokers that share an index in Redis share a database: it needs database.url or database.url_file";
        problems.add(given, text);
    }
    Some(RedisConfig {
        password_file: raw.redis_password_file.get().cloned(),
        sentinel_password_file: raw.redis_sentinel_password_file.get().cloned(),
        ca_file: raw.redis_ca.get().cloned(),
        prefix: raw.redis_prefix.get()?.0.clone(),
        ..RedisConfig::new(url)
    })
}

fn objects(raw: &Raw, problems: &mut Problems) -> Option<Objects> {
    let Some(bucket) = raw.s3_bucket.get() else {
        let mut alone = |given: bool, place: String, key: &dyn Display| {
            if given {
                problems.add(place, format!("{key} needs s3.bucket"));
            }
        };
        alone(raw.s3_endpoint.is_given(), place(&raw.s3_endpoint), &"s3.endpoint");
        alone(raw.s3_path_style.is_given(), place(&raw.s3_path_style), &"s3.path_style");
        alone(raw.s3_credentials.is_given(), place(&raw.s3_credentials), &"s3.credentials");
        alone(raw.s3_ca.is_given(), place(&raw.s3_ca), &"s3.ca");
        alone(raw.s3_kms_key.is_given(), place(&raw.s3_kms_key), &"s3.kms_key");
        alone(raw.s3_spool.is_given(), place(&raw.s3_spool), &"s3.spool");
        return Some(Objects::Folder);
    };
    let Some(credentials_file) = raw.s3_credentials.get() else {
        problems.add(
            place(&raw.s3_bucket),
            "s3.bucket needs s3.credentials, the file with the bucket's credentials",
        );
        return None;
    };
    let encryption = match raw.s3_encryption.get()? {
        Sse::Kms => Encryption::Kms(raw.s3_kms_key.get().cloned()),
        other => {
            if raw.s3_kms_key.is_given() {
                problems.add(place(&raw.s3_kms_key), "s3.kms_key needs s3.encryption = \"kms\"");
            }
            if *other == Sse::S3 { Encryption::S3 } else { Encryption::Bucket }
        }
    };
    let below = |data: &Path| data.join("spool");
    let config = S3Config {
        bucket: bucket.clone(),
        region: raw.s3_region.get()?.clone(),
        endpoint: raw.s3_endpoint.get().cloned(),
        path_style: *raw.s3_path_style.get()?,
        prefix: raw.s3_prefix.get()?.clone(),
        credentials_file: credentials_file.clone(),
        role: None,
        tenant: None,
        ca_file: raw.s3_ca.get().cloned(),
        encryption,
        spool_dir: raw.s3_spool.get().cloned().or_else(|| raw.data.get().map(|data| below(data)))?,
    };
    if let Err(e) = config.check() {
        problems.add(place(&raw.s3_bucket), format!("s3: {e}"));
    }
    Some(Objects::Bucket(Box::new(config)))
}

fn tenant_storage(raw: &Raw, objects: Option<&Objects>, problems: &mut Problems) -> Option<Setup> {
    let bucket = match objects? {
        Objects::Bucket(config) => Some(config),
        Objects::Folder => None,
    };
    let sts_endpoint = raw.tenant_storage_sts_endpoint.get().cloned();
    let allow_http = *raw.tenant_storage_allow_http.get()?;
    if let Some(url) = &sts_endpoint
        && (!s3::is_endpoint(url) || !(allow_http || url.starts_with("https://")))
    {
        let text = "tenant_storage.sts_endpoint is not https:// and a host, with nothing after it";
        problems.add(place(&raw.tenant_storage_sts_endpoint), text);
    }
    let below_data = || raw.data.get().map(|data| data.join("spool"));
    Some(Setup {
        secrets: raw.tenant_storage_secrets.get().cloned(),
        credentials_file: raw
            .tenant_storage_credentials
            .get()
            .cloned()
            .or_else(|| bucket.map(|bucket| bucket.credentials_file.clone())),
        sts_endpoint,
        ca_file: raw.tenant_storage_ca.get().cloned(),
        allow_http,
        spool_dir: bucket.map(|bucket| bucket.spool_dir.clone()).or_else(below_data)?,
        shared: bucket.map(|bucket| (bucket.bucket.clone(), bucket.prefix.clone())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn resolve(flags: &[(&'static str, &str)]) -> Result<Resolved, String> {
        let flags = flags.iter().map(|(key, value)| (*key, vec![(*value).to_owned()])).collect();
        let (raw, mut problems) = Layers { flags, ..Layers::default() }.read();
        Resolved::from_raw(&raw, &mut problems).ok_or_else(|| problems.to_string())
    }

    #[test]
    fn nothing_at_all_is_the_embedded_broker() {
        let resolved = resolve(&[]).unwrap();
        assert!(resolved.database.is_none() && matches!(resolved.objects, Objects::Folder));
        assert_eq!(resolved.quotas, Quotas::default());
        assert_eq!(resolved.lease, Duration::from_secs(15));
    }

    #[test]
    fn keys_that_need_each_other_or_exclude_each_other_are_told_all_at_once() {
        let error =
            resolve(&[("database.password_file", "/p"), ("s3.endpoint", "http://h"), ("s3.kms_key", "k")])
                .unwrap_err();
        for part in [
            "--database-password-file: database.password_file needs",
            "s3.endpoint needs s3.bucket",
            "s3.kms_key needs s3.bucket",
        ] {
            assert!(error.contains(part), "{error}");
        }
        let alone = [("redis.ca", "/ca"), ("redis.sentinel_password_file", "/p")];
        let error = resolve(&alone).unwrap_err();
        assert!(
            error.contains("redis.ca needs") && error.contains("sentinel_password_file needs"),
            "{error}"
        );
        let alone = [
            ("otlp.headers_file", "/h"),
            ("otlp.ca", "/c"),
            ("otlp.sample", "1%"),
            ("otlp.traceparent", "link"),
        ];
        let error = resolve(&alone).unwrap_err();
        assert_eq!(error.matches("needs otlp.endpoint").count(), 4, "{error}");
        let open = [("otlp.endpoint", "http://collector.example:4318"), ("otlp.headers_file", "/h")];
        let error = resolve(&open).unwrap_err();
        assert!(
            error.contains("--otlp-headers-file: otlp.headers_file needs an https:// endpoint"),
            "{error}"
        );
        let alone = [
            ("kubernetes.operator", "a/b"),
            ("kubernetes.accounts", "a/c=cpu"),
            ("kubernetes.kubeconfig", "/k"),
        ];
        let error = resolve(&alone).unwrap_err();
        assert_eq!(error.matches("needs kubernetes.audience").count(), 3, "{error}");
        let error =
            resolve(&[("control.listen", "127.0.0.1:1"), ("kubernetes.audience", "mpegflow")]).unwrap_err();
        assert!(error.contains("control.listen needs kubernetes.operator"), "{error}");
        for twice in
            [("kubernetes.accounts", "a/b=cpu"), ("kubernetes.audience", "https://kubernetes.default.svc")]
        {
            let pods = [("kubernetes.audience", "m"), ("kubernetes.operator", "a/b"), twice];
            assert!(resolve(&pods).is_err(), "{twice:?}");
        }
        let error = resolve(&[("redis.url", "redis://h:6379")]).unwrap_err();
        assert!(error.contains("share a database"), "{error}");
        let error = resolve(&[("tenant_storage.sts_endpoint", "http://sts.test")]).unwrap_err();
        assert!(
            error.contains("--tenant-storage-sts-endpoint: tenant_storage.sts_endpoint is not https://"),
            "{error}"
        );
        let error = resolve(&[("s3.bucket", "media")]).unwrap_err();
        assert!(error.contains("s3.bucket needs s3.credentials"), "{error}");
        let both = [("database.url", "postgres://u@localhost/d"), ("database.url_file", "/f")];
        assert!(resolve(&both).unwrap_err().contains("leave one out"));
        let bad = [("s3.bucket", "A"), ("s3.credentials", "/c"), ("s3.kms_key", "k")];
        let error = resolve(&bad).unwrap_err();
        assert!(error.contains("lowercase") && error.contains("s3.encryption = \"kms\""), "{error}");
    }

    #[test]
    fn files_with_secrets_are_tried_and_their_contents_stay_out_of_what_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("url");
        std::fs::write(&url, "postgres://u:swordfish@db.example/d?sslmode=nonsense").unwrap();
        let mut resolved = resolve(&[]).unwrap();
        resolved.database = Some(DatabaseConfig::new(UrlSource::File(url)));
        let mut problems = Problems::default();
        resolved.look_at_files(&mut problems);
        let text = problems.to_string();
        assert!(text.contains("sslmode") && !text.contains("swordfish"), "{text}");
    }
}
