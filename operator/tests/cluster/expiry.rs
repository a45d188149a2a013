//! Watches whose place in history the API server no longer has (410): everything is listed anew, and what was missed is seen.

use crate::support::{condition, turn};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::client::Body;
use mpegflow_operator::desired::Kind;
use mpegflow_test_cluster::{Process, until};
use serde_json::json;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// What the API server says in a watch that began too long ago.
const EXPIRED: &str = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 1 (2)","reason":"Expired","code":410}}"#;

/// A way to the API server with an account's rights, on which watches can be made deaf and then expire.
struct Line {
    port: u16,
    state: Arc<State>,
}

struct State {
    client: kube::Client,
    is_deaf: AtomicBool,
    expiries: watch::Sender<usize>,
    watches: AtomicUsize,
    /// Paths of lists, in their order.
    lists: Mutex<Vec<String>>,
}

impl Line {
    async fn open(client: kube::Client) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            client,
            is_deaf: AtomicBool::new(false),
            expiries: watch::channel(0).0,
            watches: AtomicUsize::new(0),
            lists: Mutex::default(),
        });
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let state = Arc::clone(&state);
                        async move { Ok::<_, Infallible>(state.forward(request).await) }
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, state }
    }

    fn deafen(&self) {
        self.state.is_deaf.store(true, Ordering::SeqCst);
    }

    /// Every watch hears again, and ends with the news that it is too old.
    fn expire(&self) {
        self.state.is_deaf.store(false, Ordering::SeqCst);
        self.state.expiries.send_modify(|count| *count += 1);
    }

    fn lists_of(&self, plural: &str) -> usize {
        let lists = self.state.lists.lock().unwrap();
        lists.iter().filter(|path| path.ends_with(&format!("/{plural}"))).count()
    }
}

type Answer = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

impl State {
    async fn forward(self: Arc<Self>, request: Request<Incoming>) -> Response<Answer> {
        let is_get = request.method() == hyper::Method::GET;
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        if is_get && !is_watch {
            self.lists.lock().unwrap().push(request.uri().path().to_owned());
        }
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        parts.uri = parts.uri.path_and_query().unwrap().as_str().parse().unwrap();
        parts.headers.remove(hyper::header::HOST);
        let answer = self.client.send(Request::from_parts(parts, Body::from(body.to_vec()))).await.unwrap();
        let (parts, mut body) = answer.into_parts();
        let (frames, receiver) = mpsc::channel::<Bytes>(16);
        let mut expiries = self.expiries.subscribe();
        tokio::spawn(async move {
            if is_watch {
                self.watches.fetch_add(1, Ordering::SeqCst);
            }
            loop {
                let frame = tokio::select! {
                    frame = body.frame() => frame,
                    Ok(()) = expiries.changed(), if is_watch => {
                        let _ = frames.send(format!("{EXPIRED}\n").into()).await;
                        return;
                    }
                };
                let Some(Ok(frame)) = frame else { return };
                let Ok(data) = frame.into_data() else { continue };
                if (!is_watch || !self.is_deaf.load(Ordering::SeqCst)) && frames.send(data).await.is_err() {
                    return;
                }
            }
        });
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|data| (Ok::<_, Infallible>(Frame::data(data)), receiver))
        });
        let mut parts = parts;
        parts.headers.remove(hyper::header::CONTENT_LENGTH);
        parts.headers.remove(hyper::header::TRANSFER_ENCODING);
        Response::from_parts(parts, StreamBody::new(stream.boxed()).boxed_unsync())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_expire_are_begun_anew_and_what_they_missed_is_mended() {
    let turn = turn().await;
    let shared = turn.shared;
    shared.stop_operator();
    let line = Line::open(shared.cluster.client_of("mpegflow", "mpegflow-operator").await).await;
    let kubeconfig = shared.cluster.dir().join("kubeconfig-line");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: line\nclusters: [{{name: line, cluster: {{server: \"http://127.0.0.1:{}\"}}}}]\n\
         users: [{{name: line, user: {{}}}}]\ncontexts: [{{name: line, context: {{cluster: line, user: line}}}}]\n",
        line.port
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let mut command = shared.operator("mpegflow-operator").await;
    command.env("KUBECONFIG", &kubeconfig);
    let operator = Process::start("operator-line", shared.cluster.dir(), &command);
    shared.pool("expires", json!({})).await;
    shared.until_reason("expires", "ScaledToZero").await;
    until("every watch is there", || async {
        (line.state.watches.load(Ordering::SeqCst) >= 8).then_some(())
    })
    .await;
    // What it had to say of these is said.
    tokio::time::sleep(Duration::from_secs(3)).await;

    line.deafen();
    let budgets = shared.objects(Kind::PodDisruptionBudget, "media");
    budgets.delete("expires-worker", &DeleteParams::default()).await.unwrap();
    let policies = shared.objects(Kind::NetworkPolicy, "media");
    let spec = policies.get("expires-worker").await.unwrap().data["spec"].clone();
    let open = json!({ "spec": { "egress": [{}] } });
    policies.patch("expires-worker", &PatchParams::default(), &Patch::Merge(open)).await.unwrap();
    shared.patch_pool("expires", json!({ "spec": { "drainGraceSeconds": 77 } })).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(
        budgets.get_opt("expires-worker").await.unwrap().is_none(),
        "it heard of it: {}",
        operator.log_tail()
    );

    let before =
        ["poddisruptionbudgets", "networkpolicies", "workerpools"].map(|plural| line.lists_of(plural));
    line.expire();
    until(&format!("the budget is back; {}", operator.log_tail()), || async {
        budgets.get_opt("expires-worker").await.ok()?.map(|_| ())
    })
    .await;
    until("the policy is as before", || async {
        (policies.get("expires-worker").await.ok()?.data["spec"] == spec).then_some(())
    })
    .await;
    until("the pool's own change is seen", || async {
        let pool = shared.pools("media").get("expires").await.ok()?;
        let deployment = shared.get(Kind::Deployment, "media", "expires-worker").await?;
        let grace = &deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
        (*grace == 87 && condition(&pool, "Stalled").is_some_and(|c| !c.0)).then_some(())
    })
    .await;
    let after =
        ["poddisruptionbudgets", "networkpolicies", "workerpools"].map(|plural| line.lists_of(plural));
    for (before, after) in before.iter().zip(after) {
        assert!(after > *before, "a watch went on where it was: {before} lists, then {after}");
    }
    drop(operator);
    shared.start_operator().await;
    shared.delete_pool("expires").await;
}
