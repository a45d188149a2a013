//! Which implementation runs in a cluster, told by the image of its agent.

use super::{Cni, Profile, Version};
use crate::cluster::Cluster;

/// Agents: the image's last two path components, and what it is the agent of.
const AGENTS: &[(&str, Cni)] = &[
    ("cilium/cilium", Cni::Cilium),
    ("calico/node", Cni::Calico),
    ("amazon/aws-network-policy-agent", Cni::AwsVpc),
    ("eks/aws-network-policy-agent", Cni::AwsVpc),
];

/// The implementation that enforces policies in a cluster, if exactly one is found whose version is known. The policy agent of
/// Amazon's CNI has versions of its own; the newest profile is taken for it.
pub fn detect(cluster: &Cluster) -> Option<Profile> {
    let mut found: Option<Profile> = None;
    let running = cluster.pods.iter().filter(|pod| !pod.finished);
    for image in running.flat_map(|pod| &pod.security.containers).map(|container| &*container.image) {
        let Some(profile) = agent(image) else { continue };
        match found {
            // Two agents, or one in the midst of an upgrade: the user has to say.
            Some(other) if other != profile => return None,
            _ => found = Some(profile),
        }
    }
    found
}

fn agent(image: &str) -> Option<Profile> {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    let (path, tag) = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))?;
    let (_, cni) = AGENTS.iter().find(|(name, _)| path == *name || path.ends_with(&format!("/{name}")))?;
    if *cni == Cni::AwsVpc {
        return Some(Profile::newest(*cni));
    }
    let mut numbers = tag.strip_prefix('v').unwrap_or(tag).split(['.', '-']).map(str::parse);
    let version = Version(numbers.next()?.ok()?, numbers.next()?.ok()?);
    let (oldest, newest) = cni.versions();
    (oldest..=newest).contains(&version).then_some(Profile { cni: *cni, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_known_by_its_image() {
        let cilium = Some(Profile { cni: Cni::Cilium, version: Version(1, 15) });
        assert_eq!(agent("quay.io/cilium/cilium:v1.15.19@sha256:00"), cilium);
        assert_eq!(agent("registry:5000/mirror/cilium/cilium:v1.15.0-rc.1"), cilium);
        assert_eq!(agent("docker.io/calico/node:v3.27.2").map(|p| p.cni), Some(Cni::Calico));
        let aws = "602401143452.dkr.ecr.us-west-2.amazonaws.com/amazon/aws-network-policy-agent:v1.2.0";
        assert_eq!(agent(aws).map(|p| p.cni), Some(Cni::AwsVpc));
        for other in [
            "quay.io/cilium/operator-generic:v1.15.1",
            "cilium/cilium",
            "cilium/cilium:latest",
            "cilium/cilium:v0.9.1",
        ] {
            assert_eq!(agent(other), None, "{other}");
        }
    }
}
