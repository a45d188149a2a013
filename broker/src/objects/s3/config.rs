//! What the adapter has to know.

use mpegflow_protocol::ids::TenantId;
use std::path::PathBuf;
use std::time::Duration;

/// How storage encrypts what it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Encryption {
    /// As the bucket says; no header is sent.
    #[default]
    Bucket,
    /// SSE-S3: storage's own key.
    S3,
    /// SSE-KMS: a key of the key service, its default one where none is named.
    Kms(Option<String>),
}

/// A role that is assumed to get at a bucket: by sessions that may do what the broker does to objects there, below the prefix, and
/// nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its ARN.
    pub arn: String,
    /// What its owner has put into its trust policy, so that nobody else's work leads to it.
    pub external_id: String,
    /// The session's name, as the owner's audit log shows it.
    pub session: String,
    /// Where STS is; Amazon's of the region where it is left out.
    pub endpoint: Option<String>,
    /// How long a session lives.
    pub life: Duration,
}

/// Which bucket, and how to get there. Secrets are in files; their names are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Config {
    /// The bucket. It has to be there.
    pub bucket: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The endpoint's URL; Amazon's for the region where it is left out.
    pub endpoint: Option<String>,
    /// Whether the bucket is in the path of URLs, and not in the host's name.
    pub path_style: bool,
    /// What every object's name starts with; after it comes the tenant's id.
    pub prefix: String,
    /// File with the credentials, in the format of the AWS command line, or folder with the files `access-key-id`,
    /// `secret-access-key` and, if there is one, `session-token`. Read again when it changes.
    pub credentials_file: PathBuf,
    /// The role that these credentials assume; without it they are the bucket's.
    pub role: Option<Role>,
    /// The only tenant whose objects are there; without it there may be all tenants'.
    pub tenant: Option<TenantId>,
    /// PEM file with the only certificate authorities that are trusted; the system's where it is left out.
    pub ca_file: Option<PathBuf>,
    /// How storage encrypts.
    pub encryption: Encryption,
    /// Folder on this machine for parts of uploads on their way, at most 24 MiB for each upload that is being written.
    pub spool_dir: PathBuf,
}

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The bucket's name cannot be one.
    #[error("a bucket's name has 3 to 63 lowercase letters, digits, dots and hyphens")]
    Bucket,
    /// The region's name cannot be one.
    #[error("a region's name has 1 to 64 letters, digits and hyphens")]
    Region,
    /// The endpoint is no URL of a host.
    #[error("the endpoint is not http:// or https:// and a host, with nothing after it")]
    Endpoint,
    /// The role's ARN cannot be one.
    #[error("a role's ARN is like arn:aws:iam::123456789012:role/name")]
    Role,
    /// The prefix cannot be one.
    #[error(
        "the prefix has at most 200 letters, digits and -._/ in it, no empty step and no dots alone, and ends with a slash"
    )]
    Prefix,
}

impl S3Config {
    /// Checks what can be checked without asking anyone.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bucket = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
        if !(3..=63).contains(&self.bucket.len())
            || !self.bucket.bytes().all(bucket)
            || self.bucket.contains("..")
        {
            return Err(ConfigError::Bucket);
        }
        let region = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if !(1..=64).contains(&self.region.len()) || !self.region.bytes().all(region) {
            return Err(ConfigError::Region);
        }
        let endpoints = [self.endpoint.as_ref(), self.role.as_ref().and_then(|role| role.endpoint.as_ref())];
        for endpoint in endpoints.into_iter().flatten() {
            if !is_endpoint(endpoint) {
                return Err(ConfigError::Endpoint);
            }
        }
        if self.role.as_ref().is_some_and(|role| !is_role(&role.arn)) {
            return Err(ConfigError::Role);
        }
        let step = |step: &str| {
            !step.is_empty()
                && !step.bytes().all(|b| b == b'.')
                && step.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        };
        match self.prefix.strip_suffix('/') {
            _ if self.prefix.is_empty() => Ok(()),
            Some(steps) if self.prefix.len() <= 200 && steps.split('/').all(step) => Ok(()),
            _ => Err(ConfigError::Prefix),
        }
    }
}

/// Whether a text is `http://` or `https://` and a host. No user, path or query: requests would be signed for another place than they
/// go to.
pub fn is_endpoint(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']' | b'_');
    host.is_some_and(|host| !host.is_empty() && host.bytes().all(good))
}

/// Whether a text is the ARN of a role.
fn is_role(arn: &str) -> bool {
    let mut fields = arn.splitn(6, ':');
    let mut next = || fields.next().unwrap_or_default();
    let (start, partition, service, region, account, resource) =
        (next(), next(), next(), next(), next(), next());
    let name = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_/-".contains(&b);
    arn.len() <= 2_048
        && (start, service, region) == ("arn", "iam", "")
        && !partition.is_empty()
        && partition.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && resource.strip_prefix("role/").is_some_and(|role| !role.is_empty() && role.bytes().all(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> S3Config {
        S3Config {
            bucket: "media".into(),
            region: "us-east-1".into(),
            endpoint: None,
            path_style: false,
            prefix: String::new(),
            credentials_file: "c".into(),
            role: None,
            tenant: None,
            ca_file: None,
            encryption: Encryption::Bucket,
            spool_dir: "s".into(),
        }
    }

    #[test]
    fn what_would_change_a_signed_path_is_refused() {
        let with = |change: fn(&mut S3Config, &str), text: &str| {
            let mut config = config();
            change(&mut config, text);
            config.check()
        };
        let bucket: fn(&mut S3Config, &str) = |c, text| c.bucket = text.into();
        for bad in ["", "ab", "a..b", "a/b", "A-b", "a b", "a%2fb"] {
            assert_eq!(with(bucket, bad), Err(ConfigError::Bucket), "{bad}");
        }
        let endpoint: fn(&mut S3Config, &str) = |c, text| c.endpoint = Some(text.into());
        for bad in
            ["", "https://", "ftp://h", "https://h/p", "https://h?q", "https://u@h", "h:9000", "https://h/"]
        {
            assert_eq!(with(endpoint, bad), Err(ConfigError::Endpoint), "{bad}");
        }
        for good in ["https://h", "http://127.0.0.1:9000", "http://[::1]:9000"] {
            assert_eq!(with(endpoint, good), Ok(()), "{good}");
        }
        let prefix: fn(&mut S3Config, &str) = |c, text| c.prefix = text.into();
        for bad in ["a", "/", "/a/", "a//b/", "../", "a/./", "a b/", "a%2f/", "é/"] {
            assert_eq!(with(prefix, bad), Err(ConfigError::Prefix), "{bad}");
        }
        for good in ["", "a/", "a/b.c_d-e/"] {
            assert_eq!(with(prefix, good), Ok(()), "{good}");
        }
        assert_eq!(with(|c, text| c.region = text.into(), "eu west"), Err(ConfigError::Region));
        let role: fn(&mut S3Config, &str) = |c, text| {
            c.role = Some(Role {
                arn: text.into(),
                external_id: "e".into(),
                session: "s".into(),
                endpoint: None,
                life: Duration::from_secs(900),
            });
        };
        for bad in [
            "",
            "role/a",
            "arn:aws:iam::123456789012:user/a",
            "arn:aws:iam::12345678901:role/a",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role/a&Action=x",
            "arn:aws:sts::123456789012:role/a",
            "arn:aws:iam:x:123456789012:role/a",
        ] {
            assert_eq!(with(role, bad), Err(ConfigError::Role), "{bad}");
        }
        for good in ["arn:aws:iam::123456789012:role/a", "arn:aws-cn:iam::123456789012:role/path/to/a_b+c"] {
            assert_eq!(with(role, good), Ok(()), "{good}");
        }
    }
}
