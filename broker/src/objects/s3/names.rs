//! Names of objects in the bucket. [`Key::path`] makes the object's own; what lies beside it is derived here and nowhere else.

use crate::objects::{Key, Owner};
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId};

/// Says that there may be an open multipart upload of the object beside it.
const MARK: &str = ".open";
/// Between an upload's name and the names of its pieces.
const PIECES: &str = ".tail/";

/// The names below one prefix.
pub(super) struct Names {
    prefix: String,
    /// The only tenant whose they are.
    tenant: Option<TenantId>,
}

impl Names {
    /// `prefix` is empty or ends with a slash.
    pub(super) const fn new(prefix: String, tenant: Option<TenantId>) -> Self {
        Self { prefix, tenant }
    }

    /// The only tenant whose they are.
    pub(super) const fn tenant(&self) -> Option<TenantId> {
        self.tenant
    }

    /// The prefix of every name that is listed: what a tenant keeps in its own bucket besides is none of ours, and may be much.
    pub(super) fn listed(&self) -> String {
        self.tenant.map_or_else(|| self.prefix.clone(), |tenant| format!("{}{tenant}/", self.prefix))
    }

    /// The prefix of every name.
    pub(super) fn root(&self) -> &str {
        &self.prefix
    }

    /// The object itself.
    pub(super) fn object(&self, key: &Key) -> String {
        format!("{}{}", self.prefix, key.path().display())
    }

    /// The prefix of all that an attempt wrote.
    pub(super) fn attempt(&self, tenant: TenantId, job: JobId, attempt: AttemptId) -> String {
        let any = self.object(&Key::Output(tenant, job, attempt, 0));
        any.trim_end_matches('0').to_owned()
    }

    /// Whose it is; `None` for a name that is none of ours.
    pub(super) fn owner(&self, name: &str) -> Option<Owner> {
        let mut steps = name.strip_prefix(&self.prefix)?.split('/');
        let tenant = steps.next()?.parse().ok()?;
        if self.tenant.is_some_and(|only| only != tenant) {
            return None;
        }
        match steps.next()? {
            "uploads" => {
                let id = steps.next()?;
                Some(Owner::Upload(tenant, id.split_once('.').map_or(id, |(id, _)| id).parse().ok()?))
            }
            "jobs" => {
                let job = steps.next()?.parse().ok()?;
                let attempt = steps.next()?.parse().ok()?;
                steps.next().map(|_| Owner::Attempt(tenant, job, attempt))
            }
            _ => None,
        }
    }
}

/// The mark beside an object.
pub(super) fn mark(object: &str) -> String {
    format!("{object}{MARK}")
}

/// The object that this mark is beside; `None` where it is no mark.
pub(super) fn marked(name: &str) -> Option<&str> {
    name.strip_suffix(MARK)
}

/// The prefix of an upload's pieces.
pub(super) fn pieces(object: &str) -> String {
    format!("{object}{PIECES}")
}

/// The piece with the bytes from `start` to `end` of an upload.
pub(super) fn piece(object: &str, start: u64, end: u64) -> String {
    format!("{object}{PIECES}{start:016x}-{end:016x}")
}

/// Where a piece starts and ends.
pub(super) fn piece_range(object: &str, name: &str) -> Option<(u64, u64)> {
    let (start, end) = name.strip_prefix(object)?.strip_prefix(PIECES)?.split_once('-')?;
    let range = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    (range.0 < range.1).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpegflow_protocol::ids::UploadId;

    #[test]
    fn every_name_says_whose_it_is() {
        let (tenant, job) = (TenantId::from_u128(1), JobId::from_u128(2));
        let (attempt, upload) = (AttemptId::from_u128(0xa0), UploadId::from_u128(4));
        let names = Names::new("mpegflow/".into(), None);
        let object = names.object(&Key::Upload(tenant, upload));
        for name in [object.clone(), mark(&object), piece(&object, 0, 9)] {
            assert_eq!(names.owner(&name), Some(Owner::Upload(tenant, upload)), "{name}");
        }
        let output = names.object(&Key::Output(tenant, job, attempt, 10));
        assert!(output.starts_with(&names.attempt(tenant, job, attempt)), "{output}");
        assert!(
            names.attempt(tenant, job, attempt).ends_with("/"),
            "another attempt's name may begin with this one's"
        );
        for name in [output.clone(), mark(&output)] {
            assert_eq!(names.owner(&name), Some(Owner::Attempt(tenant, job, attempt)), "{name}");
        }
        assert_eq!(marked(&mark(&output)), Some(output.as_str()));
        assert_eq!(marked(&output), None);
        assert_eq!(piece_range(&object, &piece(&object, 7, 1 << 36)), Some((7, 1 << 36)));
        for foreign in ["", "mpegflow/", "mpegflow/x/uploads/y", "other/file", "mpegflow/tnt_1/uploads/upl_1"]
        {
            assert_eq!(names.owner(foreign), None, "{foreign}");
        }
        let own = |tenant| Names::new("mpegflow/".into(), Some(tenant));
        assert_eq!(own(tenant).owner(&output), Some(Owner::Attempt(tenant, job, attempt)));
        assert_eq!(own(TenantId::from_u128(9)).owner(&output), None, "another tenant's");
        assert!(output.starts_with(&own(tenant).listed()) && object.starts_with(&own(tenant).listed()));
    }
}
