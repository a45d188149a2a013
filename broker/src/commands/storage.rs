//! `mpegflow-broker storage …`.

use anyhow::Context as _;
use clap::Subcommand;
use mpegflow_broker::engine::Engine;
use mpegflow_protocol::control;
use mpegflow_protocol::ids::TenantId;
use std::io::Write as _;

#[derive(Debug, Subcommand)]
pub(crate) enum Storage {
    /// Keep a tenant's uploads and outputs in storage of its own from now on, and take inputs from there. Every broker follows within
    /// seconds. A tenant that has uploads or jobs keeps its place; how the broker gets in can be changed at any time.
    Set {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// The bucket; it has to be there.
        #[arg(long, value_name = "NAME")]
        bucket: String,
        /// What all names start with; ends with a slash. No other tenant's may begin with it, nor it with another's.
        #[arg(long, default_value = "", value_name = "PREFIX")]
        prefix: String,
        /// Endpoint, for storage that is not Amazon's: `https://` and a host.
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
        /// Region that requests are signed for; us-east-1 where it is left out.
        #[arg(long, value_name = "REGION")]
        region: Option<String>,
        /// Put the bucket in the path of URLs, and not in the host's name.
        #[arg(long)]
        path_style: bool,
        /// The role to assume. Its trust policy has to demand the tenant's id as `sts:ExternalId`; `storage show` prints the id.
        #[arg(long, value_name = "ARN", required_unless_present = "secret", conflicts_with = "secret")]
        role_arn: Option<String>,
        /// Name of the credentials in the folder tenant_storage.secrets of the broker's configuration.
        #[arg(long, value_name = "NAME")]
        secret: Option<String>,
    },
    /// Print a tenant's id and its own storage as JSON; null where it has none.
    Show {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
    },
    /// Write a small object to a tenant's own storage, look at it and remove it.
    Check {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
    },
    /// Keep a tenant's uploads and outputs where all tenants' are.
    Clear {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// Although it has uploads or jobs: their bytes stay in the tenant's storage, and nobody finds them any more. For storage that
        /// is gone for good.
        #[arg(long)]
        abandon: bool,
    },
}

async fn id_of(engine: &Engine, name: &str) -> anyhow::Result<TenantId> {
    let id = engine.store().tenant_named(name).await?;
    id.with_context(|| format!("there is no tenant `{name}`; `api-key create` makes one"))
}

pub(crate) async fn run(command: Storage, engine: &Engine) -> anyhow::Result<()> {
    match command {
        Storage::Set { tenant, bucket, prefix, endpoint, region, path_style, role_arn, secret } => {
            let raw = control::Storage { bucket, prefix, endpoint, region, path_style, role_arn, secret };
            Ok(engine.set_storage(id_of(engine, &tenant).await?, Some(raw), false).await?)
        }
        Storage::Show { tenant } => {
            let id = id_of(engine, &tenant).await?;
            let storage = engine.store().storage_of(id).await?.map(|storage| storage.raw());
            let shown = serde_json::json!({ "tenant": id, "storage": storage });
            Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&shown)?)?)
        }
        Storage::Check { tenant } => {
            engine.try_storage(id_of(engine, &tenant).await?).await?;
            Ok(writeln!(std::io::stdout(), "the storage of {tenant} does what it has to")?)
        }
        Storage::Clear { tenant, abandon } => {
            Ok(engine.set_storage(id_of(engine, &tenant).await?, None, abandon).await?)
        }
    }
}
