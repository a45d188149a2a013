//! A tenant's own storage, as the operator of the broker has set it: where it is, and how the broker gets in. No secret is in it: the
//! broker assumes a role with its own credentials, or reads credentials from a file that its configuration leads to.

use super::s3::{ConfigError, Encryption, Role, S3Config};
use mpegflow_protocol::control;
use mpegflow_protocol::ids::TenantId;
use std::path::PathBuf;
use std::time::Duration;

/// The region where none is said.
const REGION: &str = "us-east-1";

/// How the broker gets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// By a role, of which this is the ARN.
    Role(String),
    /// By credentials of this name among the secrets of the broker's configuration.
    Secret(String),
}

/// A tenant's own storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnStorage {
    /// The bucket.
    pub bucket: String,
    /// What every name begins with.
    pub prefix: String,
    /// The endpoint; Amazon's for the region where it is left out.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// Whether the bucket is in the path of URLs.
    pub path_style: bool,
    /// How the broker gets in.
    pub access: Access,
}

/// Why this cannot be a tenant's storage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadStorage {
    /// A field is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Neither or both ways in.
    #[error("exactly one of a role and a secret says how the broker gets in")]
    Access,
    /// The secret's name is none.
    #[error(
        "a secret's name has 1 to 253 lowercase letters, digits, dots and hyphens, begins and ends with a letter or digit, and has no two dots in a row"
    )]
    Secret,
    /// The endpoint has no TLS.
    #[error(
        "the endpoint is not https://; tenant_storage.allow_http in the broker's configuration allows others"
    )]
    Http,
    /// It is within the bucket of all, or the other way round.
    #[error(
        "the broker keeps other tenants' objects in this bucket, and one prefix begins with the other: use another bucket or prefix"
    )]
    Shared,
    /// The configuration lacks what a role needs.
    #[error(
        "a role needs tenant_storage.credentials in the broker's configuration: what the role is assumed with"
    )]
    NoCredentials,
    /// The configuration lacks what a secret needs.
    #[error("a secret needs tenant_storage.secrets in the broker's configuration: the folder that it is in")]
    NoSecrets,
}

/// What the broker's configuration says of tenants' own storage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setup {
    /// The folder that secrets are in.
    pub secrets: Option<PathBuf>,
    /// What roles are assumed with.
    pub credentials_file: Option<PathBuf>,
    /// Where STS is; at the tenant's endpoint, or Amazon's, where it is left out.
    pub sts_endpoint: Option<String>,
    /// PEM file with the only authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// Whether an endpoint may be without TLS.
    pub allow_http: bool,
    /// Folder for parts of uploads on their way.
    pub spool_dir: PathBuf,
    /// Bucket and prefix of the tenants that have none of their own.
    pub shared: Option<(String, String)>,
}

/// How long a session of a role lives: what every role allows.
pub const SESSION: Duration = Duration::from_secs(3_600);

/// Whether one of two places holds the other. Two endpoints may be names of one server, so buckets of one name count as one.
fn overlap(one: (&str, &str), other: (&str, &str)) -> bool {
    one.0 == other.0 && (one.1.starts_with(other.1) || other.1.starts_with(one.1))
}

impl OwnStorage {
    /// From what was written, without asking anyone.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(raw: control::Storage) -> Result<Self, BadStorage> {
        let control::Storage { bucket, prefix, endpoint, region, path_style, role_arn, secret } = raw;
        let access = match (role_arn, secret) {
            (Some(arn), None) => Access::Role(arn),
            (None, Some(name)) if is_secret(&name) => Access::Secret(name),
            (None, Some(_)) => return Err(BadStorage::Secret),
            _ => return Err(BadStorage::Access),
        };
        let region = region.unwrap_or_else(|| REGION.into());
        let storage = Self { bucket, prefix, endpoint, region, path_style, access };
        storage.config(TenantId::from_u128(0), &Setup::default()).check()?;
        Ok(storage)
    }

    /// As it is written.
    pub fn raw(&self) -> control::Storage {
        let (role_arn, secret) = match &self.access {
            Access::Role(arn) => (Some(arn.clone()), None),
            Access::Secret(name) => (None, Some(name.clone())),
        };
        control::Storage {
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            endpoint: self.endpoint.clone(),
            region: Some(self.region.clone()),
            path_style: self.path_style,
            role_arn,
            secret,
        }
    }

    /// Whether it can be used by a broker that is set up so.
    ///
    /// # Errors
    /// What keeps it from that.
    pub fn check(&self, setup: &Setup) -> Result<(), BadStorage> {
        if !setup.allow_http && self.endpoint.as_ref().is_some_and(|url| !url.starts_with("https://")) {
            return Err(BadStorage::Http);
        }
        let shared = setup.shared.as_ref().map(|(bucket, prefix)| (bucket.as_str(), prefix.as_str()));
        if shared.is_some_and(|shared| overlap(shared, self.place())) {
            return Err(BadStorage::Shared);
        }
        match self.access {
            Access::Role(_) if setup.credentials_file.is_none() => Err(BadStorage::NoCredentials),
            Access::Secret(_) if setup.secrets.is_none() => Err(BadStorage::NoSecrets),
            _ => Ok(()),
        }
    }

    fn place(&self) -> (&str, &str) {
        (&self.bucket, &self.prefix)
    }

    /// Whether objects of the one could be objects of the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        overlap(self.place(), other.place())
    }

    /// Whether objects lie at the same place, whatever the way in.
    pub fn is_at(&self, other: &Self) -> bool {
        self.place() == other.place() && self.endpoint == other.endpoint
    }

    /// What the adapter needs. The role's external id is the tenant's: a role that trusts it for this tenant is no other tenant's,
    /// whoever writes its ARN.
    pub fn config(&self, tenant: TenantId, setup: &Setup) -> S3Config {
        let (credentials_file, role) = match &self.access {
            Access::Role(arn) => {
                let role = Role {
                    arn: arn.clone(),
                    external_id: tenant.to_string(),
                    session: format!("mpegflow-{tenant}"),
                    endpoint: setup.sts_endpoint.clone().or_else(|| self.endpoint.clone()),
                    life: SESSION,
                };
                (setup.credentials_file.clone().unwrap_or_default(), Some(role))
            }
            Access::Secret(name) => (setup.secrets.clone().unwrap_or_default().join(name), None),
        };
        S3Config {
            bucket: self.bucket.clone(),
            region: self.region.clone(),
            endpoint: self.endpoint.clone(),
            path_style: self.path_style,
            prefix: self.prefix.clone(),
            credentials_file,
            role,
            tenant: Some(tenant),
            ca_file: setup.ca_file.clone(),
            encryption: Encryption::Bucket,
            spool_dir: setup.spool_dir.clone(),
        }
    }
}

/// Whether a text is a name of Kubernetes' Secrets; as a path it leads nowhere else.
fn is_secret(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    name.len() <= 253
        && edge(bytes.first())
        && edge(bytes.last())
        && !name.contains("..")
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> control::Storage {
        control::Storage {
            bucket: "films".into(),
            prefix: "in/".into(),
            endpoint: Some("https://s3.test".into()),
            region: None,
            path_style: true,
            role_arn: None,
            secret: Some("newsroom".into()),
        }
    }

    fn setup() -> Setup {
        Setup { secrets: Some("/s".into()), credentials_file: Some("/c".into()), ..Setup::default() }
    }

    #[test]
    fn one_way_in_is_needed_and_names_lead_nowhere_else() {
        let storage = OwnStorage::new(raw()).unwrap();
        assert_eq!(
            storage.config(TenantId::from_u128(1), &setup()).credentials_file,
            PathBuf::from("/s/newsroom")
        );
        assert_eq!(OwnStorage::new(storage.raw()).unwrap(), storage);
        for bad in ["", "..", "a/b", "/etc/passwd", "../a", "a..b", ".a", "a.", "A", "a\0b", "a b"] {
            let raw = control::Storage { secret: Some(bad.into()), ..raw() };
            assert_eq!(OwnStorage::new(raw), Err(BadStorage::Secret), "{bad:?}");
        }
        let role = Some("arn:aws:iam::123456789012:role/r".to_owned());
        let both = control::Storage { role_arn: role.clone(), ..raw() };
        let neither = control::Storage { secret: None, ..raw() };
        for raw in [both, neither] {
            assert_eq!(OwnStorage::new(raw), Err(BadStorage::Access));
        }
        let tenant = TenantId::from_u128(7);
        let assumed = OwnStorage::new(control::Storage { role_arn: role, secret: None, ..raw() }).unwrap();
        let config = assumed.config(tenant, &setup());
        assert_eq!(config.role.unwrap().external_id, tenant.to_string(), "nobody can write another's");
        for (bad, why) in [
            (control::Storage { bucket: "a/b".into(), ..raw() }, ConfigError::Bucket),
            (control::Storage { prefix: "in".into(), ..raw() }, ConfigError::Prefix),
            (control::Storage { prefix: "../in/".into(), ..raw() }, ConfigError::Prefix),
            (control::Storage { endpoint: Some("https://h/p".into()), ..raw() }, ConfigError::Endpoint),
            (control::Storage { region: Some("a b".into()), ..raw() }, ConfigError::Region),
        ] {
            assert_eq!(OwnStorage::new(bad), Err(why.into()));
        }
    }

    #[test]
    fn a_place_that_holds_anybody_elses_objects_is_refused() {
        let at = |bucket: &str, prefix: &str| {
            OwnStorage::new(control::Storage { bucket: bucket.into(), prefix: prefix.into(), ..raw() })
                .unwrap()
        };
        let elsewhere = OwnStorage { endpoint: Some("https://other.test".into()), ..at("films", "") };
        for (one, other, same) in [
            (at("films", "in/"), at("films", "in/"), true),
            (at("films", ""), at("films", "in/"), true),
            (at("films", "in/deep/"), at("films", "in/"), true),
            (at("films", "in/"), at("films", "inside/"), false),
            (at("films", "in/"), at("other", "in/"), false),
            (elsewhere, at("films", "in/"), true),
        ] {
            assert_eq!((one.overlaps(&other), other.overlaps(&one)), (same, same), "{one:?} {other:?}");
        }
        let shared = |prefix: &str| Setup { shared: Some(("films".into(), prefix.into())), ..setup() };
        for (prefix, expected) in
            [("", Err(BadStorage::Shared)), ("in/a/", Err(BadStorage::Shared)), ("out/", Ok(()))]
        {
            assert_eq!(at("films", "in/").check(&shared(prefix)), expected, "{prefix}");
        }
    }

    #[test]
    fn what_the_configuration_lacks_is_told() {
        let storage = OwnStorage::new(raw()).unwrap();
        assert_eq!(storage.check(&Setup::default()), Err(BadStorage::NoSecrets));
        let plain = OwnStorage { endpoint: Some("http://s3.test".into()), ..storage.clone() };
        assert_eq!(plain.check(&setup()), Err(BadStorage::Http));
        assert_eq!(plain.check(&Setup { allow_http: true, ..setup() }), Ok(()));
        let role = Access::Role("arn:aws:iam::123456789012:role/r".into());
        let role = OwnStorage { access: role, ..storage };
        assert_eq!(role.check(&Setup::default()), Err(BadStorage::NoCredentials));
    }
}
