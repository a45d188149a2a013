//! Findings about policies themselves.

use super::Finding;
use crate::cluster::Cluster;
use crate::profile::Profile;

/// Findings about the cluster's policies.
pub(super) fn findings(cluster: &Cluster, profile: Profile) -> Vec<Finding> {
    let _ = (cluster, profile);
    Vec::new()
}
