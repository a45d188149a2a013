//! A cluster's API server: a client of it, and requests whose answers are of bounded length.

use crate::exit::{Exit, Failed};
use http_body_util::BodyExt as _;
use hyper::{Request, StatusCode};
use kube::client::Body;
use serde_json::Value;
use std::error::Error;
use std::path::Path;

/// A client of the cluster that the kubeconfig's context, or the named one, points at.
pub(crate) async fn client(context: Option<&str>, kubeconfig: Option<&Path>) -> Result<kube::Client, Failed> {
    let failed = |what: String| {
        Failed::new(Exit::BadInput, "no_cluster", what)
            .help("check it with `kubectl cluster-info`; choose with --context or --kubeconfig")
    };
    let options =
        kube::config::KubeConfigOptions { context: context.map(str::to_owned), ..Default::default() };
    let config = match kubeconfig {
        Some(path) => {
            let file = kube::config::Kubeconfig::read_from(path)
                .map_err(|e| failed(format!("cannot read {}: {e}", path.display())))?;
            kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|e| failed(e.to_string()))?
        }
        None if context.is_some() => {
            kube::Config::from_kubeconfig(&options).await.map_err(|e| failed(e.to_string()))?
        }
        None => kube::Config::infer().await.map_err(|e| failed(format!("no cluster is configured: {e}")))?,
    };
    kube::Client::try_from(config).map_err(|e| failed(e.to_string()))
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// It is none.
    #[error("cannot ask for {path}: {source}")]
    Request { path: String, source: hyper::http::Error },
    /// Nobody is there, or it is not who the kubeconfig says.
    #[error("the API server does not answer: {0}")]
    Silent(kube::Error),
    /// The answer broke off or is longer than it may be.
    #[error("cannot read {path}: {source}")]
    Body { path: String, source: Box<dyn Error + Send + Sync> },
    /// The answer is something else.
    #[error("the answer to {path} is not JSON: {source}")]
    Json { path: String, source: serde_json::Error },
}

/// What is at a path, as [`ask`] has it.
pub(crate) async fn get(
    client: &kube::Client,
    path: &str,
    most_bytes: usize,
) -> Result<(StatusCode, Value), Unanswered> {
    let request = Request::get(path)
        .header("accept", "application/json")
        .body(Body::empty())
        .map_err(|source| Unanswered::Request { path: path.to_owned(), source })?;
    ask(client, request, most_bytes).await
}

/// The status of the answer, and of a success its body, which is JSON of at most so many bytes; null of any other.
pub(crate) async fn ask(
    client: &kube::Client,
    request: Request<Body>,
    most_bytes: usize,
) -> Result<(StatusCode, Value), Unanswered> {
    let path = request.uri().to_string();
    let answer = client.send(request).await.map_err(Unanswered::Silent)?;
    let status = answer.status();
    if !status.is_success() {
        return Ok((status, Value::Null));
    }
    let body = http_body_util::Limited::new(answer.into_body(), most_bytes).collect().await;
    let body = match body {
        Ok(body) => body.to_bytes(),
        Err(source) => return Err(Unanswered::Body { path, source }),
    };
    match serde_json::from_slice(&body) {
        Ok(value) => Ok((status, value)),
        Err(source) => Err(Unanswered::Json { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// A client of a server that always answers this.
    fn answering(status: u16, body: &'static str) -> kube::Client {
        let answer = move |_: Request<Body>| async move {
            let body = Body::from(body.as_bytes().to_vec());
            Ok::<_, Infallible>(hyper::Response::builder().status(status).body(body).unwrap())
        };
        kube::Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn an_answer_is_bounded_and_says_what_it_is_when_it_is_no_json() {
        let found = get(&answering(200, r#"{"a":1}"#), "/version", 7).await.unwrap();
        assert_eq!(found, (StatusCode::OK, serde_json::json!({ "a": 1 })));
        let long = get(&answering(200, r#"{"a":1}"#), "/version?limit=5", 6).await.unwrap_err();
        assert!(long.to_string().starts_with("cannot read /version?limit=5: "), "{long}");
        let other = get(&answering(200, "<html>"), "/version", 99).await.unwrap_err();
        assert!(other.to_string().starts_with("the answer to /version is not JSON: "), "{other}");
        // Whatever a refusal says.
        let refused = get(&answering(403, "<html>"), "/version", 1).await.unwrap();
        assert_eq!(refused, (StatusCode::FORBIDDEN, Value::Null));
        let bad = get(&answering(200, "{}"), "/a b", 99).await.unwrap_err();
        assert!(bad.to_string().starts_with("cannot ask for /a b: "), "{bad}");
    }
}
