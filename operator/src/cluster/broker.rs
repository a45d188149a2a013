//! The broker's Service: its addresses and ports.

use crate::desired::Broker;
use crate::settings::BrokerService;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Api, Client};
use mpegflow_policies::audit::intent::BROKER_PORT;
use std::net::IpAddr;

/// Why no worker could find the broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// There is no Service.
    #[error("there is no Service {0}: install the broker, or name its Service with --broker-service")]
    Missing(String),
    /// It has no address.
    #[error(
        "the Service {0} has no cluster address; a headless Service, or one of another type, cannot be written into pods"
    )]
    NoAddress(String),
    /// It has no port of that name.
    #[error("the Service {0} has no TCP port named {BROKER_PORT}")]
    NoPort(String),
    /// The port leads to a named port of pods, which may be another number in each pod.
    #[error(
        "the port {BROKER_PORT} of the Service {0} leads to a named port; write the number as its targetPort"
    )]
    NamedPort(String),
    /// It selects no pods by labels.
    #[error("the Service {0} has no selector, so that nobody can say which pods are the broker's")]
    NoSelector(String),
    /// The API server did not answer.
    #[error("the Service {0} cannot be read")]
    Unreadable(String, #[source] kube::Error),
}

/// Reads the Service.
///
/// # Errors
/// It is not there, or workers could not use it.
pub async fn broker(client: &Client, settings: &BrokerService) -> Result<Broker, BrokerError> {
    let services: Api<Service> = Api::namespaced(client.clone(), &settings.namespace);
    let name = format!("{}/{}", settings.namespace, settings.name);
    match services.get_opt(&settings.name).await {
        Ok(Some(service)) => read(&service, name),
        Ok(None) => Err(BrokerError::Missing(name)),
        Err(error) => Err(BrokerError::Unreadable(name, error)),
    }
}

/// What a Service says of the broker.
///
/// # Errors
/// Workers could not use it.
pub fn read(service: &Service, name: String) -> Result<Broker, BrokerError> {
    let spec = service.spec.clone().unwrap_or_default();
    let addresses = spec.cluster_ips.unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
    let addresses: Vec<IpAddr> = addresses.iter().filter_map(|text| text.parse().ok()).collect();
    if addresses.is_empty() {
        return Err(BrokerError::NoAddress(name));
    }
    let is_wanted = |port: &&k8s_openapi::api::core::v1::ServicePort| {
        port.name.as_deref() == Some(BROKER_PORT) && port.protocol.as_deref().unwrap_or("TCP") == "TCP"
    };
    let ports = spec.ports.unwrap_or_default();
    let port = ports.iter().find(is_wanted).ok_or_else(|| BrokerError::NoPort(name.clone()))?;
    let number = |number: i32| u16::try_from(number).map_err(|_| BrokerError::NoPort(name.clone()));
    let target_port = match &port.target_port {
        None => number(port.port)?,
        Some(IntOrString::Int(target)) => number(*target)?,
        Some(IntOrString::String(_)) => return Err(BrokerError::NamedPort(name)),
    };
    let port = number(port.port)?;
    let pods = spec.selector.unwrap_or_default();
    if pods.is_empty() {
        return Err(BrokerError::NoSelector(name));
    }
    Ok(Broker { addresses, port, target_port, pods })
}
