//! A job through the real broker, supervisor and codec, as a collector of traces sees it.

#[path = "../../broker/tests/support/collector.rs"]
mod collector;

use collector::{Collector, Seen};
use mpegflow_tests::system::{Client, Process, run, text, until};
use mpegflow_tests::{media, program};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(60);

struct Site {
    folder: tempfile::TempDir,
    client: Client,
    broker: Process,
    _worker: Process,
}

impl Site {
    /// A broker and a worker as programs of their own.
    fn start(options: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let broker = || {
            let mut command = Command::new(program("mpegflow-broker"));
            command.arg("--data").arg(path("data"));
            command
        };
        let admin = |args: &[&str], out: &Path| {
            let done = run(broker().args(args).arg("--out").arg(out), SOON);
            assert!(done.status.success(), "{}", text(&done));
        };
        let (public, worker) = (mpegflow_test_ports::port(), mpegflow_test_ports::port());
        let (listen, workers) = (format!("127.0.0.1:{public}"), format!("127.0.0.1:{worker}"));
        let mut serve = broker();
        serve.args(["serve", "--listen", &listen, "--worker-listen", &workers, "--grace", "0"]);
        serve.args(options).envs(environment.iter().copied());
        let running = Process::start(&mut serve, path("broker.log"));
        until("the broker answers", SOON, || std::net::TcpStream::connect(&listen).ok());
        admin(&["api-key", "create", "--tenant", "acme"], &path("key"));
        admin(&["join-token", "create", "--broker", &workers], &path("join.json"));
        let mut command = Command::new(program("mpegflow-worker"));
        command.arg("--join").arg(path("join.json")).envs(environment.iter().copied());
        let worker = Process::start(&mut command, path("worker.log"));
        let key = std::fs::read_to_string(path("key")).unwrap().trim().to_owned();
        let client = Client { url: format!("http://{listen}"), key };
        Self { folder, client, broker: running, _worker: worker }
    }

    fn end(&mut self) {
        self.broker.signal("TERM");
        assert!(self.broker.wait(SOON).success());
    }
}

fn children<'a>(spans: &'a [Seen], of: &Seen) -> Vec<&'a Seen> {
    spans.iter().filter(|s| s.parent == of.id).collect()
}

fn names(spans: &[&Seen]) -> BTreeSet<String> {
    spans.iter().map(|s| s.name.clone()).collect()
}

#[test]
fn a_job_through_broker_supervisor_and_codec_is_one_trace() {
    let collector = Collector::start();
    let mut site = Site::start(&["--otlp-endpoint", &collector.endpoint()], &[]);
    let film = site.folder.path().join("secret-name.mp4");
    std::fs::copy(media::clip(2, 320, 240), &film).unwrap();
    let id = site.client.submit(&film, &["--preset", "web"]);
    let job = site.client.ended(&id, LIMIT);
    assert_eq!(job["state"], "succeeded", "{job}");
    site.end();
    let spans = collector.of_job(&id);
    let root = spans.iter().find(|s| s.parent.is_empty()).unwrap();
    assert_eq!(root.name, "POST /v1/jobs");
    let whole = children(&spans, root);
    assert_eq!((whole.len(), whole[0].name.as_str()), (1, "job"));
    let attempts = children(&spans, whole[0]);
    assert_eq!(
        names(&attempts),
        ["process probe", "process encode", "process package", "process check"].map(str::to_owned).into()
    );
    for attempt in attempts {
        let kind = attempt.attributes["mpegflow.task.kind"].as_str();
        let parts = children(&spans, attempt);
        let mut expected: BTreeSet<String> =
            ["queue", "lease", "launch", "lock", "codec", "fetch", "settle", "commit"]
                .map(str::to_owned)
                .into();
        if kind == "encode" || kind == "package" {
            expected.insert("upload".into());
        }
        assert_eq!(names(&parts), expected, "{kind}: {parts:#?}");
        let codec = parts.iter().find(|s| s.name == "codec").unwrap();
        let phases: &[&str] = match kind {
            "probe" => &["probe"],
            "encode" => &["open", "decode", "encode"],
            "package" => &["package"],
            _ => &["check"],
        };
        let told = children(&spans, codec);
        assert_eq!(names(&told), phases.iter().map(|p| (*p).to_owned()).collect(), "{kind}");
        for span in parts.iter().filter(|s| s.name != "queue") {
            assert!(attempt.start <= span.start && span.end <= attempt.end, "{span:#?} in {attempt:#?}");
        }
        for span in told {
            assert!(codec.start <= span.start && span.end <= codec.end, "{span:#?} in {codec:#?}");
        }
        for span in parts {
            for key in ["mpegflow.job.id", "mpegflow.tenant.id", "mpegflow.attempt.id", "mpegflow.pool"] {
                assert_eq!(span.attributes[key], attempt.attributes[key]);
            }
        }
        let fetch = parts_named(&spans, attempt, "fetch");
        assert!(fetch.attributes["mpegflow.bytes"].parse::<u64>().unwrap() > 0);
    }
    let raw = String::from_utf8_lossy(&collector.state().raw).into_owned();
    for secret in ["secret-name", site.client.key.as_str(), "http://", "acme"] {
        assert!(!raw.contains(secret), "{secret}");
    }
}

fn parts_named<'a>(spans: &'a [Seen], of: &Seen, name: &str) -> &'a Seen {
    spans.iter().find(|s| s.parent == of.id && s.name == name).unwrap()
}

#[test]
fn nothing_is_sent_anywhere_unless_the_configuration_says_so_whatever_the_environment_says() {
    let collector = Collector::start();
    let endpoint = collector.endpoint();
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str()),
        ("OTEL_TRACES_EXPORTER", "otlp"),
    ];
    let mut site = Site::start(&[], &environment);
    let id = site.client.submit(&media::clip(2, 320, 240), &["--preset", "audio"]);
    assert_eq!(site.client.ended(&id, LIMIT)["state"], "succeeded");
    site.end();
    assert_eq!(collector.state().connections, 0);
}
