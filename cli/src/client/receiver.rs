//! A receiver of webhooks on the developer's machine.

use super::{Client, ClientError, PATIENCE, base_url, full, root_cause};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Uri};

/// Where messages are posted.
#[derive(Debug, Clone)]
pub(crate) struct Receiver(Uri);

impl Client {
    /// The receiver at a URL.
    pub(crate) fn receiver(&self, url: &str) -> Result<Receiver, ClientError> {
        // The same shapes as a broker's address, and a path behind it.
        let uri: Uri = url.parse().map_err(|_| ClientError::Usage(format!("{url} is no URL")))?;
        let root = format!(
            "{}://{}",
            uri.scheme_str().unwrap_or_default(),
            uri.authority().map_or("", |authority| authority.as_str())
        );
        base_url(&root)?;
        Ok(Receiver(uri))
    }

    /// Posts a message; the status of the answer. The API key does not go there.
    pub(crate) async fn deliver(
        &self,
        to: &Receiver,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<u16, String> {
        let mut builder = Request::builder()
            .method(Method::POST)
            .uri(to.0.clone())
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            builder = builder.header(*name, value);
        }
        let request = builder.body(full(body.into())).map_err(|e| e.to_string())?;
        match tokio::time::timeout(PATIENCE, self.http.request(request)).await {
            Ok(Ok(answer)) => Ok(answer.status().as_u16()),
            Ok(Err(e)) => Err(root_cause(&e)),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }
}
