//! Which of the kinds that a cluster may not know it knows.

use crate::desired::Kind;
use kube::Client;
use std::collections::BTreeSet;

/// Asks the API server. A kind is known once it is served, not once its definition exists; Calico's may come from an API
/// server of its own, which has no definition at all.
///
/// # Errors
/// The API server does not answer: then nobody knows, which is not the same as *no*.
pub async fn known(client: &Client) -> kube::Result<BTreeSet<Kind>> {
    let mut kinds = BTreeSet::new();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_optional()) {
        let resource = kind.resource();
        match client.list_api_group_resources(&resource.api_version).await {
            Ok(list) if list.resources.iter().any(|served| served.name == resource.plural) => {
                kinds.insert(kind);
            }
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(kinds)
}
