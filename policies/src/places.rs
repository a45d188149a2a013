//! Addresses that every audit asks about, whether a policy mentions them or not.

use crate::cluster::Cluster;
use crate::sets::{AddressSet, Cidr};

/// A cloud's metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataService {
    /// Its address.
    pub address: &'static str,
    /// Whose it is.
    pub what: &'static str,
}

/// Metadata services of the clouds, each with its source.
pub const METADATA: &[MetadataService] = &[
    // AWS EC2, Google Cloud, Azure, Oracle, DigitalOcean, OpenStack and most others.
    MetadataService {
        address: "169.254.169.254",
        what: "the metadata service of AWS, Google Cloud, Azure and others",
    },
    // AWS EC2 over IPv6: AWS EC2 user guide, "Access instance metadata".
    MetadataService { address: "fd00:ec2::254", what: "the metadata service of AWS over IPv6" },
    // AWS ECS task metadata and credentials: Amazon ECS developer guide.
    MetadataService { address: "169.254.170.2", what: "the credentials service of AWS ECS" },
    // EKS Pod Identity agent: Amazon EKS user guide, "How EKS Pod Identity works".
    MetadataService { address: "169.254.170.23", what: "the Pod Identity agent of AWS EKS" },
    MetadataService { address: "fd00:ec2::23", what: "the Pod Identity agent of AWS EKS over IPv6" },
    // Google Cloud over IPv6: Compute Engine documentation, "About VM metadata".
    MetadataService { address: "fd20:ce::254", what: "the metadata service of Google Cloud over IPv6" },
    // Azure's wire server: Azure documentation, "What is IP address 168.63.129.16?".
    MetadataService { address: "168.63.129.16", what: "the wire server of Azure" },
    // Alibaba Cloud ECS documentation, "Instance metadata".
    MetadataService { address: "100.100.100.200", what: "the metadata service of Alibaba Cloud" },
    // Oracle Cloud Infrastructure's earlier address.
    MetadataService { address: "192.0.0.192", what: "the metadata service of Oracle Cloud" },
    // Tencent Cloud documentation, "Instance metadata".
    MetadataService { address: "169.254.0.23", what: "the metadata service of Tencent Cloud" },
];

/// Their addresses one by one, so that each is told apart.
pub fn each_metadata_address() -> impl Iterator<Item = AddressSet> {
    METADATA
        .iter()
        .filter_map(|service| service.address.parse().ok())
        .map(|ip| AddressSet::block(Cidr::host(ip)))
}

/// All their addresses.
pub fn metadata_addresses() -> AddressSet {
    AddressSet::blocks(METADATA.iter().filter_map(|service| service.address.parse().ok()).map(Cidr::host))
}

/// What a set of addresses is known as, if all of it is one metadata service.
pub fn what(set: &AddressSet) -> Option<&'static str> {
    METADATA
        .iter()
        .find(|service| service.address.parse().is_ok_and(|ip| *set == AddressSet::block(Cidr::host(ip))))
        .map(|service| service.what)
}

/// Addresses of Services, external ones among them: what a packet to a Service carries before its destination is translated.
pub fn service_addresses(cluster: &Cluster) -> AddressSet {
    let services = cluster.services.iter();
    let all = services.flat_map(|service| service.cluster_ips.iter().chain(&service.external_ips));
    AddressSet::blocks(all.copied().map(Cidr::host))
}

/// Addresses of the API server: the Service `default/kubernetes` and its endpoints.
pub fn kube_api_addresses(cluster: &Cluster) -> AddressSet {
    let services =
        cluster.services.iter().filter(|s| *s.namespace == *"default" && *s.object.name == *"kubernetes");
    let endpoints =
        cluster.endpoints.iter().filter(|e| *e.namespace == *"default" && *e.service == *"kubernetes");
    let addresses = services.flat_map(|service| service.cluster_ips.iter().copied());
    AddressSet::blocks(
        addresses.chain(endpoints.flat_map(|e| e.addresses.iter().map(|(ip, _)| *ip))).map(Cidr::host),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_address_is_an_address() {
        let all = metadata_addresses();
        for service in METADATA {
            assert!(all.contains(service.address.parse().unwrap()), "{}", service.address);
        }
    }
}
