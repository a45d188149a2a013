//! Every key of the configuration, once. The struct of the raw configuration, the names in the environment, the flags, the
//! defaults and the reference page are all made from this list.

use super::layers::{Origin, Slot};
use super::setting::{
    AccountOfPool, Bytes, LogFormat, Number, PlainUrl, PortRange, RedisPrefix, Setting, Span, Sse,
    TokenAlgorithm, Traceparent, Value,
};
use crate::enrol::Account;
use crate::http::cors::Origin as PageOrigin;
use crate::otlp::CollectorUrl;
use crate::queue::redis::RedisUrl;
use crate::store::postgres::DatabaseUrl;
use crate::trace::Share;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What is known of a key whatever its type is.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in the file, such as `database.url`.
    pub name: &'static str,
    /// Its flag, without the dashes.
    pub flag: &'static str,
    /// An older name in the environment that still works.
    pub old_env: Option<&'static str>,
    /// Its default as text; without one the key may be left out.
    pub default: Option<&'static str>,
    /// What it does.
    pub doc: &'static str,
    /// What values look like.
    pub values: fn() -> String,
    /// The word for its value in `--help`.
    pub word: &'static str,
    /// Whether it holds a list.
    pub list: bool,
    /// Whether it is yes or no.
    pub switch: bool,
    /// What the file that it names holds, where that is a secret.
    pub secret: Option<&'static str>,
}

impl Key {
    /// The part of the file it is in; empty for the top.
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// Its name in the environment.
    pub fn env(&self) -> String {
        format!("{}{}", super::layers::ENV_PREFIX, self.name.to_uppercase().replace('.', "_"))
    }
}

macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

macro_rules! keys {
    ($($(#[doc = $doc:literal])* $field:ident: $type:ty = $name:literal, $flag:literal, $word:literal
        $(, default $default:literal)? $(, env $old:literal)? $(, secret $secret:literal)?;)*) => {
        /// The configuration as the layers give it: each key with its value and where that is from.
        #[derive(Debug, Clone, Default)]
        pub struct Raw {
            $($(#[doc = $doc])* pub $field: Slot<$type>,)*
        }

        /// Every key, in the order of the reference page.
        pub const KEYS: &[Key] = &[$(Key {
            name: $name,
            flag: $flag,
            old_env: optional!($($old)?),
            default: optional!($($default)?),
            doc: concat!($($doc),*),
            values: <$type as Setting>::values,
            word: $word,
            list: is_list(stringify!($type)),
            switch: is_switch(stringify!($type)),
            secret: optional!($($secret)?),
        }),*];

        impl Raw {
            /// Sets a key, over whatever it had.
            ///
            /// # Errors
            /// The value is not one of the key's.
            pub fn set(&mut self, key: &str, value: &Value, origin: Origin) -> Result<(), String> {
                match key {
                    $($name => self.$field = Slot::given(<$type>::read(value)?, origin),)*
                    _ => return Err("there is no such key".into()),
                }
                Ok(())
            }

            /// Each key with its value as TOML and where that is from; `None` where it has none.
            pub fn show(&self) -> Vec<(&'static Key, Option<(String, Origin)>)> {
                let values = [$(self.$field.0.as_ref().map(|(value, origin)| (value.toml(), origin.clone()))),*];
                KEYS.iter().zip(values).collect()
            }
        }
    };
}

const fn starts(text: &str, with: &str) -> bool {
    let (text, with) = (text.as_bytes(), with.as_bytes());
    let mut n = 0;
    while n < with.len() {
        #[expect(clippy::indexing_slicing, reason = "`n` is below both lengths")]
        if n >= text.len() || text[n] != with[n] {
            return false;
        }
        n = n.saturating_add(1);
    }
    true
}

const fn is_list(r#type: &str) -> bool {
    starts(r#type, "Vec<")
}

const fn is_switch(r#type: &str) -> bool {
    starts(r#type, "bool")
}

keys! {
    /// Folder for the certificate authority, the capabilities' key and, without a database and a bucket, everything else.
    data: PathBuf = "data", "data", "DIR", default "mpegflow-data";

    /// Folder with the certificate authority and the capabilities' key, which replicas share; in the data folder where it is left out.
    identity: PathBuf = "identity", "identity", "DIR";

    /// How the log on standard error is written. What is logged, the variable `RUST_LOG` says.
    log_format: LogFormat = "log.format", "log-format", "FORMAT", default "text";

    /// Where the public API listens.
    public_listen: SocketAddr = "public.listen", "listen", "ADDRESS", default "127.0.0.1:8080";

    /// How long the broker goes on answering after SIGTERM, saying that it is not ready and keeping no connection, before it stops to
    /// listen: longer than whatever is in front of it takes to notice.
    public_grace: Span<0, 300> = "public.grace", "grace", "SECONDS", default "3s";

    /// Connections to the public API at once; each takes a file descriptor. Whoever is new takes the place of whoever has been silent for the
    /// longest; where requests are under way on all of them, it waits.
    public_connections: Number<128, 65_536> = "public.connections", "public-connections", "NUMBER", default "1024";

    /// Origins whose pages may call the public API from a browser, such as `https://app.example.com`; `*` for any. None where it is
    /// left out. Who may do what is decided by the API key, not by this.
    public_origins: Vec<PageOrigin> = "public.cors_origins", "cors-origin", "ORIGIN", default "";

    /// Where the worker API listens.
    worker_listen: SocketAddr = "worker.listen", "worker-listen", "ADDRESS", default "127.0.0.1:8443";
    /// More names and addresses by which workers know the broker; they go into its certificate.
    worker_names: Vec<String> = "worker.names", "worker-name", "NAME", default "";
    /// How long a lease lives without a heartbeat.
    worker_lease: Span<2, 600> = "worker.lease", "lease", "SECONDS", default "15s";
    /// Connections of workers at once: a worker has one, and more while it reads and writes. The rest is as for `public.connections`.
    worker_connections: Number<128, 65_536> = "worker.connections", "worker-connections", "NUMBER", default "1024";
    /// How long a worker's connection is used before it is closed with its next answer, so that workers spread over replicas.
    worker_connection_age: Span<1, 86_400> = "worker.connection_age", "connection-age", "SECONDS", default "300s";

    /// Where the metrics are. They say how busy tenants are: nobody but the monitoring should reach it. Nowhere where it is left out.
    metrics_listen: SocketAddr = "metrics.listen", "metrics-listen", "ADDRESS";

    /// Base URL of an OpenTelemetry collector, which gets the traces of jobs by OTLP over HTTP (`/v1/traces` is added to it). Nothing is
    /// traced where it is left out.
    otlp_endpoint: PlainUrl<CollectorUrl> = "otlp.endpoint", "otlp-endpoint", "URL";
    /// File with headers of each request to the collector, such as a token: `Name: value`, one a line. Read again for each request.
    otlp_headers_file: PathBuf = "otlp.headers_file", "otlp-headers-file", "FILE", secret "headers for the collector";
    /// PEM file with the only certificate authorities to trust for the collector; the system's where it is left out.
    otlp_ca: PathBuf = "otlp.ca", "otlp-ca", "FILE";
    /// How many of the jobs are traced.
    otlp_sample: Share = "otlp.sample", "otlp-sample", "SHARE", default "100%";
    /// What is done with the header `traceparent` of whoever submits a job: `ignore` it, let the job's trace `link` to the caller's span, or
    /// take that as its `parent`, in the caller's trace. `tracestate` and `baggage` are never read.
    otlp_traceparent: Traceparent = "otlp.traceparent", "otlp-traceparent", "HOW", default "ignore";

    /// Audience of the tokens by which pods prove to this broker who they are. Where it is left out, workers join by join tokens alone.
    kubernetes_audience: String = "kubernetes.audience", "kubernetes-audience", "NAME";
    /// Service account of the operator, whose pods may use the control API.
    kubernetes_operator: Account = "kubernetes.operator", "kubernetes-operator", "NAMESPACE/NAME";
    /// Service accounts whose pods are a pool's workers although no operator says so.
    kubernetes_accounts: Vec<AccountOfPool> = "kubernetes.accounts", "kubernetes-account", "NAMESPACE/NAME=POOL", default "";
    /// How Kubernetes' API server is reached; as a pod's own account does where it is left out.
    kubernetes_kubeconfig: PathBuf = "kubernetes.kubeconfig", "kubeconfig", "FILE", secret "credentials for Kubernetes' API server";
    /// Where the control API listens, for the operator alone. Nowhere where it is left out.
    control_listen: SocketAddr = "control.listen", "control-listen", "ADDRESS";

    /// PostgreSQL database, without a password. Where this and `database.url_file` are left out, a file in the data folder.
    database_url: PlainUrl<DatabaseUrl> = "database.url", "database-url", "URL";
    /// File with the database's URL, which may hold a password. Read again for each new connection.
    database_url_file: PathBuf = "database.url_file", "database-url-file", "FILE", secret "the database's URL and password";
    /// File with the database's password and nothing else. Read again for each new connection.
    database_password_file: PathBuf = "database.password_file", "database-password-file", "FILE", secret "the database's password";
    /// Most connections to the database.
    database_connections: Number<2, 1000> = "database.connections", "database-connections", "NUMBER", default "10";

    /// Folder for signed checkpoints of the audit log, outside the database; brokers may share it. Without it nothing is signed, and a
    /// log that somebody with the database's password chained anew looks whole.
    audit_checkpoints: PathBuf = "audit.checkpoints", "audit-checkpoints", "DIR";
    /// File with the key that signs them; `mpegflow-broker audit key` makes it.
    audit_key: PathBuf = "audit.key", "audit-key", "FILE", secret "the key that signs checkpoints";
    /// How often the heads of the chains are signed, where they have moved: what was chained since the last time can be cut off unseen.
    audit_interval: Span<5, 86_400> = "audit.interval", "audit-interval", "SECONDS", default "600s";

    /// Redis, the index that brokers share, without a password: `redis://`, `redis+sentinel://` or `redis+cluster://`, with `rediss` for
    /// TLS. Where this and `redis.url_file` are left out, an index in the broker.
    redis_url: PlainUrl<RedisUrl> = "redis.url", "redis-url", "URL";
    /// File with Redis' URL, which may hold a password. Read again for each new connection.
    redis_url_file: PathBuf = "redis.url_file", "redis-url-file", "FILE", secret "Redis' URL and password";
    /// File with Redis' password and nothing else. Read again for each new connection.
    redis_password_file: PathBuf = "redis.password_file", "redis-password-file", "FILE", secret "Redis' password";
    /// File with the Sentinels' own password. Read again for each new connection.
    redis_sentinel_password_file: PathBuf = "redis.sentinel_password_file", "redis-sentinel-password-file", "FILE", secret "the Sentinels' password";
    /// PEM file with the only certificate authorities to trust for Redis; the system's where it is left out.
    redis_ca: PathBuf = "redis.ca", "redis-ca-file", "FILE";
    /// What every key in Redis begins with, where several installations share a server.
    redis_prefix: RedisPrefix = "redis.prefix", "redis-prefix", "NAME", default "mpegflow";

    /// Bucket for uploads and outputs; it has to be there. A folder in the data folder where it is left out.
    s3_bucket: String = "s3.bucket", "s3-bucket", "NAME", env "MPEGFLOW_S3_BUCKET";
    /// Region that requests are signed for.
    s3_region: String = "s3.region", "s3-region", "REGION", default "us-east-1", env "MPEGFLOW_S3_REGION";
    /// Endpoint, for storage that is not Amazon's: `http://` or `https://` and a host.
    s3_endpoint: String = "s3.endpoint", "s3-endpoint", "URL", env "MPEGFLOW_S3_ENDPOINT";
    /// Put the bucket in the path of URLs, and not in the host's name.
    s3_path_style: bool = "s3.path_style", "s3-path-style", "BOOL", default "false", env "MPEGFLOW_S3_PATH_STYLE";
    /// What the names of all objects start with; ends with a slash. The tenant's id comes next.
    s3_prefix: String = "s3.prefix", "s3-prefix", "PREFIX", default "", env "MPEGFLOW_S3_PREFIX";
    /// File with credentials in the format of the AWS command line. Read again whenever it changes.
    s3_credentials: PathBuf = "s3.credentials", "s3-credentials", "FILE", env "MPEGFLOW_S3_CREDENTIALS", secret "the bucket's credentials";
    /// PEM file with the only certificate authorities to trust for storage; the system's where it is left out.
    s3_ca: PathBuf = "s3.ca", "s3-ca", "FILE", env "MPEGFLOW_S3_CA";
    /// How storage is told to encrypt objects.
    s3_encryption: Sse = "s3.encryption", "s3-encryption", "HOW", default "bucket", env "MPEGFLOW_S3_ENCRYPTION";
    /// Key of the key service; its default one where it is left out.
    s3_kms_key: String = "s3.kms_key", "s3-kms-key", "ID", env "MPEGFLOW_S3_KMS_KEY";
    /// Folder for parts of uploads on their way, at most 24 MiB for each upload that is being written; below the data folder where it is left out.
    s3_spool: PathBuf = "s3.spool", "s3-spool", "DIR", env "MPEGFLOW_S3_SPOOL";

    /// Folder with the credentials of tenants' own storage: a file or a folder for each, of the name that the tenant's storage has as its
    /// secret. A file is in the format of the AWS command line; a folder has the files `access-key-id` and `secret-access-key`, as
    /// Kubernetes mounts a Secret. Read again whenever they change.
    tenant_storage_secrets: PathBuf = "tenant_storage.secrets", "tenant-storage-secrets", "DIR", secret "credentials of tenants' own storage";
    /// File with the credentials that roles of tenants' own storage are assumed with, as `s3.credentials`, which they are where it is
    /// left out. Read again whenever it changes.
    tenant_storage_credentials: PathBuf = "tenant_storage.credentials", "tenant-storage-credentials", "FILE", secret "what tenants' roles are assumed with";
    /// Where roles are assumed (STS): `https://` and a host. Where it is left out, at the endpoint of the tenant's storage, or at Amazon's
    /// STS of its region where that has none.
    tenant_storage_sts_endpoint: String = "tenant_storage.sts_endpoint", "tenant-storage-sts-endpoint", "URL";
    /// PEM file with the only certificate authorities to trust for tenants' own storage; the system's where it is left out.
    tenant_storage_ca: PathBuf = "tenant_storage.ca", "tenant-storage-ca", "FILE";
    /// Take endpoints without TLS for tenants' own storage: everybody between can then read what is in it.
    tenant_storage_allow_http: bool = "tenant_storage.allow_http", "tenant-storage-allow-http", "BOOL", default "false";

    /// Issuer of OpenID Connect tokens that tenants may send in place of API keys, as `iss` spells it: `https://` and a host. No token is
    /// taken where it is left out.
    oidc_issuer: String = "oidc.issuer", "oidc-issuer", "URL";
    /// Who the tokens are for, as `aud` spells it.
    oidc_audience: String = "oidc.audience", "oidc-audience", "TEXT";
    /// What tokens are signed with. Those of any other algorithm are refused, whatever they say.
    oidc_algorithm: TokenAlgorithm = "oidc.algorithm", "oidc-algorithm", "NAME", default "RS256";
    /// Claim that names the tenant, which has to be there.
    oidc_tenant_claim: String = "oidc.tenant_claim", "oidc-tenant-claim", "NAME", default "mpegflow_tenant";
    /// What each token may do: `all`, or some of `read`, `upload`, `submit`, `delete`, `webhooks`, `rules` and `intake`.
    oidc_scopes: Vec<String> = "oidc.scopes", "oidc-scope", "SCOPE", default "all";
    /// Where the issuer's keys are; as its discovery document says where it is left out.
    oidc_jwks: String = "oidc.jwks", "oidc-jwks", "URL";
    /// PEM file with the only certificate authorities to trust for the issuer; the system's where it is left out.
    oidc_ca: PathBuf = "oidc.ca", "oidc-ca", "FILE";

    /// Networks that webhooks may be in although they are not public. Link-local addresses and metadata services stay refused.
    webhooks_allow_networks: Vec<IpNet> = "webhooks.allow_networks", "webhook-allow-network", "NETWORK", default "";
    /// Ports that webhooks may be on.
    webhooks_ports: Vec<PortRange> = "webhooks.ports", "webhook-port", "PORTS", default "443";
    /// Take webhooks without TLS: messages are signed, not secret, then.
    webhooks_allow_http: bool = "webhooks.allow_http", "webhook-allow-http", "BOOL", default "false";
    /// PEM file with the only certificate authorities to trust for webhooks; the system's where it is left out.
    webhooks_ca: PathBuf = "webhooks.ca", "webhook-ca", "FILE";

    /// Jobs that a tenant may have unfinished at once.
    quotas_unfinished_jobs: Number<1, 1_000_000> = "quotas.unfinished_jobs", "quota-unfinished-jobs", "NUMBER", default "1000";
    /// Tasks that a tenant may have running at once; any number where it is left out.
    quotas_running_tasks: Number<1, 1_000_000> = "quotas.running_tasks", "quota-running-tasks", "NUMBER";
    /// Uploads that a tenant may have unfinished at once.
    quotas_unfinished_uploads: Number<1, 10_000> = "quotas.unfinished_uploads", "quota-unfinished-uploads", "NUMBER", default "64";
    /// Bytes of all uploads of a tenant.
    quotas_upload_bytes: Bytes = "quotas.upload_bytes", "quota-upload-bytes", "BYTES", default "4TiB";
    /// Minutes of output that one job of a tenant may make; any number where it is left out.
    quotas_job_output_minutes: Number<1, 1_000_000> = "quotas.job_output_minutes", "quota-job-output-minutes", "NUMBER";
    /// Core-seconds that one job of a tenant may take, as estimated before anything is encoded; any number where it is left out.
    quotas_job_core_seconds: Number<1, 1_000_000_000> = "quotas.job_core_seconds", "quota-job-core-seconds", "NUMBER";
    /// Minutes of input that all jobs of a tenant may have in a calendar day, UTC; any number where it is left out.
    quotas_minutes_per_day: Number<1, 10_000_000> = "quotas.minutes_per_day", "quota-minutes-per-day", "NUMBER";

    /// Days that a tenant's jobs, with their output and what their events say, are kept after they have ended, and its uploads after
    /// their last byte, where the tenant's own limits say nothing. For ever where it is left out.
    retention_days: Number<1, 36_500> = "retention.days", "retention-days", "DAYS";

    /// How often storage is searched for files that no row knows, which a broker or storage that died in between may leave over; also
    /// whenever another broker comes to lead that. All that is stored is listed for it.
    orphans_interval: Span<1, 2_592_000> = "orphans.interval", "orphans-interval", "SECONDS", default "1d";

    /// Requests a second that a tenant may make over time, at each broker.
    rate_requests_per_second: Number<1, 1_000_000> = "rate.requests_per_second", "rate-requests-per-second", "NUMBER", default "100";
    /// Requests that a tenant may make at once, before that rate holds.
    rate_burst: Number<1, 1_000_000> = "rate.burst", "rate-burst", "NUMBER", default "1000";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_default_is_a_value_of_its_key() {
        let mut raw = Raw::default();
        for key in KEYS {
            if let Some(default) = key.default {
                raw.set(key.name, &Value::Text(default.into()), Origin::Default)
                    .unwrap_or_else(|e| panic!("{}: {e}", key.name));
            }
        }
    }

    #[test]
    fn names_flags_and_variables_are_of_one_key_each() {
        for name in [|k: &Key| k.name.to_owned(), |k: &Key| k.flag.to_owned(), Key::env] {
            let names: BTreeSet<String> = KEYS.iter().map(name).collect();
            assert_eq!(names.len(), KEYS.len());
        }
    }

    #[test]
    fn every_key_says_what_it_does() {
        for key in KEYS {
            assert!(key.doc.trim().len() > 10 && key.doc.trim().ends_with('.'), "{}", key.name);
        }
    }

    #[test]
    fn no_variable_of_a_key_is_one_that_kubernetes_sets_for_a_service() {
        for key in KEYS {
            assert!(!super::super::layers::is_of_a_service(&key.env()), "{}", key.name);
        }
    }
}
