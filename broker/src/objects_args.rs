//! Options that choose where objects are kept.

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use mpegflow_broker::objects::Objects;
use mpegflow_broker::objects::s3::{Encryption, S3Config, S3Objects};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How storage encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sse {
    /// As the bucket says.
    Bucket,
    /// SSE-S3: storage's own key.
    S3,
    /// SSE-KMS: a key of the key service.
    Kms,
}

/// A bucket for the objects. No option holds a secret: credentials are in a file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Objects in S3 (a folder below --data where there is no bucket)")]
pub(crate) struct ObjectsArgs {
    /// Bucket for uploads and outputs; it has to be there.
    #[arg(long, env = "MPEGFLOW_S3_BUCKET", value_name = "NAME", requires = "s3_credentials")]
    s3_bucket: Option<String>,
    /// Region that requests are signed for.
    #[arg(long, env = "MPEGFLOW_S3_REGION", default_value = "us-east-1", value_name = "REGION")]
    s3_region: String,
    /// Endpoint, for storage that is not Amazon's: http:// or https:// and a host.
    #[arg(long, env = "MPEGFLOW_S3_ENDPOINT", value_name = "URL", requires = "s3_bucket")]
    s3_endpoint: Option<String>,
    /// Put the bucket in the path of URLs, and not in the host's name.
    #[arg(long, env = "MPEGFLOW_S3_PATH_STYLE", requires = "s3_bucket")]
    s3_path_style: bool,
    /// What the names of all objects start with; ends with a slash. The tenant's id comes next.
    #[arg(long, env = "MPEGFLOW_S3_PREFIX", default_value = "", value_name = "PREFIX")]
    s3_prefix: String,
    /// File with credentials in the format of the AWS command line; read again whenever it changes.
    #[arg(long, env = "MPEGFLOW_S3_CREDENTIALS", value_name = "FILE", requires = "s3_bucket")]
    s3_credentials: Option<PathBuf>,
    /// PEM file with the certificate authorities to trust for storage; the system's where it is left out.
    #[arg(long, env = "MPEGFLOW_S3_CA", value_name = "FILE", requires = "s3_bucket")]
    s3_ca: Option<PathBuf>,
    /// How storage is told to encrypt objects.
    #[arg(long, env = "MPEGFLOW_S3_ENCRYPTION", default_value = "bucket", value_enum)]
    s3_encryption: Sse,
    /// Key of the key service; its default one where it is left out.
    #[arg(long, env = "MPEGFLOW_S3_KMS_KEY", value_name = "ID", requires = "s3_bucket")]
    s3_kms_key: Option<String>,
    /// Folder for parts of uploads on their way, at most 24 MiB for each upload that is being written; below --data where it
    /// is left out.
    #[arg(long, env = "MPEGFLOW_S3_SPOOL", value_name = "DIR", requires = "s3_bucket")]
    s3_spool: Option<PathBuf>,
}

impl ObjectsArgs {
    /// The bucket, where one is named. One that does not answer is said in the log, and no error.
    pub(crate) async fn open(self, data: &Path) -> anyhow::Result<Option<Arc<dyn Objects>>> {
        let (Some(bucket), Some(credentials_file)) = (self.s3_bucket, self.s3_credentials) else {
            return Ok(None);
        };
        anyhow::ensure!(
            self.s3_kms_key.is_none() || self.s3_encryption == Sse::Kms,
            "--s3-kms-key needs --s3-encryption kms"
        );
        let config = S3Config {
            bucket,
            region: self.s3_region,
            endpoint: self.s3_endpoint,
            path_style: self.s3_path_style,
            prefix: self.s3_prefix,
            credentials_file,
            ca_file: self.s3_ca,
            encryption: match self.s3_encryption {
                Sse::Bucket => Encryption::Bucket,
                Sse::S3 => Encryption::S3,
                Sse::Kms => Encryption::Kms(self.s3_kms_key),
            },
            spool_dir: self.s3_spool.unwrap_or_else(|| data.join("spool")),
        };
        let objects = S3Objects::open(&config).context("cannot use the bucket")?;
        match objects.probe().await {
            Ok(probe) => {
                tracing::info!(conditional_writes = probe.conditional_writes, "storage does what it has to")
            }
            // It may before anything needs it; until it answers the broker says that it is not ready.
            Err(e) => {
                let error = format!("{:#}", anyhow::Error::from(e));
                tracing::error!(error, "storage does not do what it has to");
            }
        }
        Ok(Some(Arc::new(objects)))
    }
}
