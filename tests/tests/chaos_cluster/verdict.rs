//! What has to be true afterwards. The rule for jobs: each one that was acknowledged has ended; it has succeeded, or it is one of
//! those that the tenant canceled. It may have failed only where attempts at one task of it were lost, or met storage or a broker
//! that failed, as often as such a task is tried (`state::MAX_WORKER_FAILURES`, `MAX_BACKOFF_FAILURES`), and such jobs are few.

use crate::common::{Client, output_digest};
use crate::crew::{Ledger, Shared, output_bytes};
use crate::faults::Menu;
use crate::postgres;
use crate::site::{REAL, REDIS_PASSWORD, Site};
use mpegflow_broker::conformance::objects::owners;
use mpegflow_broker::embedded::{Config, Opened};
use mpegflow_broker::objects::Owner;
use mpegflow_broker::state::{MAX_BACKOFF_FAILURES, MAX_WORKER_FAILURES};
use mpegflow_protocol::api::{Job, JobState};
use mpegflow_protocol::failure::{Failure, FailureClass};
use mpegflow_tests::program;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// The database's time as a broker knows it may be off by half of a round trip; one that has just begun may have had a slow one only.
const ABOUT_MS: i64 = 2_000;

async fn rows(conn: &mut PgConnection, sql: &str) -> Vec<PgRow> {
    sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(conn).await.unwrap_or_else(|e| panic!("{e}: {sql}"))
}

async fn count(conn: &mut PgConnection, sql: &str) -> i64 {
    rows(conn, sql).await[0].get(0)
}

/// Whether every job has ended, every event has its place, and the index is empty.
pub(crate) async fn is_drained(site: &Site) -> bool {
    if !site.postgres.answers() || site.indexed() != Some(0) {
        return false;
    }
    let mut conn = site.database.connect().await;
    let waiting = "SELECT (SELECT count(*) FROM jobs WHERE state IN ('queued', 'running', 'canceling'))
        + (SELECT count(*) FROM leases) + (SELECT count(*) FROM outbox) + (SELECT count(*) FROM journal)";
    count(&mut conn, waiting).await == 0
}

/// What hangs.
pub(crate) async fn stuck(site: &Site) -> String {
    let mut conn = site.database.connect().await;
    let mut text = format!("not drained in time; the index has {:?} tasks", site.indexed());
    for table in ["leases", "outbox", "journal"] {
        let n = count(&mut conn, &format!("SELECT count(*) FROM {table}")).await;
        text += &format!("; {n} rows in {table}");
    }
    let tasks = "SELECT j.id, j.state, t.kind, t.state, t.epoch, t.not_before - (extract(epoch FROM now()) * 1000)::bigint, t.tries,
        j.tenant FROM jobs j JOIN tasks t ON t.job = j.id WHERE j.state IN ('queued', 'running', 'canceling')
        ORDER BY j.id, t.id LIMIT 40";
    for row in rows(&mut conn, tasks).await {
        let text_of = |n: usize| row.get::<String, _>(n);
        text += &format!(
            "\n{} {} {}: {} {} epoch {} in {} ms, {}",
            text_of(7),
            text_of(0),
            text_of(1),
            text_of(2),
            text_of(3),
            row.get::<i64, _>(4),
            row.get::<i64, _>(5),
            text_of(6)
        );
    }
    text
}

/// Fails the test with everything that is not as it has to be.
pub(crate) async fn judge(site: &mut Site, shared: &Arc<Shared>, menu: Menu) {
    let mut wrong = Vec::new();
    let jobs = jobs_as_shown(site, shared, &mut wrong).await;
    let ledger = std::mem::take(&mut *shared.ledger());
    wrong.extend(ledger.wrong.iter().cloned());
    let mut conn = site.database.connect().await;
    let failed = states(&mut conn, &ledger, &jobs, &mut wrong).await;
    outputs(site, &mut conn, &ledger, &jobs, &mut wrong).await;
    once(&mut conn, &mut wrong).await;
    fenced(&mut conn, &ledger, &mut wrong).await;
    log(site, &mut wrong);
    secrets(site, &ledger, &mut wrong).await;
    site.end();
    nothing_left(site, &mut conn, &ledger, &mut wrong).await;
    let tasks = count(&mut conn, "SELECT count(*) FROM tasks WHERE state = 'succeeded'").await;
    let lost = count(&mut conn, "SELECT count(*) FROM attempts WHERE state IN ('lost', 'failed')").await;
    let attempts = count(&mut conn, "SELECT count(*) FROM attempts").await;
    let refusals: u64 = ledger.refusals.values().sum();
    println!(
        "  {} jobs, {tasks} tasks done in {attempts} attempts, {lost} lost or failed; {refusals} calls refused; {failed} jobs failed",
        jobs.len()
    );
    assert!(
        wrong.is_empty(),
        "{} things are wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
    assert!(menu == Menu::RedisWiped || attempts > tasks, "no fault was felt");
}

/// Every job as each replica shows it, which has to be the same.
async fn jobs_as_shown(site: &Site, shared: &Arc<Shared>, wrong: &mut Vec<String>) -> HashMap<String, Job> {
    let wanted: Vec<(String, usize)> =
        shared.ledger().jobs.iter().map(|(id, wanted)| (id.clone(), wanted.tenant)).collect();
    let mut shown = HashMap::new();
    for (n, (id, tenant)) in wanted.iter().enumerate() {
        // Some at every replica, the rest at one of them.
        let asked = if n % 10 == 0 { 0..3 } else { n % 3..n % 3 + 1 };
        for replica in asked {
            let client = client(site, replica, *tenant);
            let answer = client.try_call("GET", &format!("/v1/jobs/{id}"), "", Duration::from_secs(20)).await;
            let Some(answer) = answer.filter(|a| a.status == 200) else {
                wrong.push(format!("job {id} was acknowledged, and replica {replica} does not show it"));
                continue;
            };
            let job: Job = answer.json();
            match shown.get(id) {
                Some(other) if *other != job => wrong.push(format!("replicas show job {id} differently")),
                Some(_) => {}
                None => drop(shown.insert(id.clone(), job)),
            }
        }
    }
    shown
}

fn client(site: &Site, replica: usize, tenant: usize) -> Client {
    let at = format!("http://127.0.0.1:{}", site.replicas[replica].public.port);
    Client::new(at, None, None).with("authorization", format!("Bearer {}", site.keys[tenant]))
}

/// All that was acknowledged is there, nothing else is, and it has ended as it may. How many failed.
async fn states(
    conn: &mut PgConnection,
    ledger: &Ledger,
    jobs: &HashMap<String, Job>,
    wrong: &mut Vec<String>,
) -> usize {
    let known: BTreeSet<String> =
        rows(conn, "SELECT id FROM jobs").await.iter().map(|row| row.get(0)).collect();
    let wanted: BTreeSet<String> = ledger.jobs.keys().cloned().collect();
    for id in known.symmetric_difference(&wanted) {
        wrong.push(format!("job {id} is in the database or was acknowledged, not both"));
    }
    let mut failures: HashMap<String, Vec<Failure>> = HashMap::new();
    for row in rows(conn, "SELECT task, failure FROM attempts WHERE failure IS NOT NULL").await {
        failures.entry(row.get(0)).or_default().push(serde_json::from_str(row.get(1)).unwrap());
    }
    let failed_tasks = rows(conn, "SELECT job, id FROM tasks WHERE state = 'failed'").await;
    let failed_tasks: HashMap<String, String> =
        failed_tasks.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut failed = 0;
    for (id, job) in jobs {
        let wanted = ledger.jobs[id];
        match job.state {
            JobState::Succeeded => {}
            JobState::Canceled if wanted.canceled => {}
            JobState::Failed => {
                failed += 1;
                let of_task = failed_tasks.get(id).and_then(|task| failures.get(task));
                let of_class = |classes: &[FailureClass]| {
                    let all = of_task.into_iter().flatten();
                    all.filter(|failure| classes.contains(&failure.class())).count() as u32
                };
                let lost = of_class(&[FailureClass::Worker]);
                let backed_off = of_class(&[FailureClass::Storage, FailureClass::Broker]);
                // A codec that is killed is one that crashed, of which there may be two.
                let real = wanted.tenant == REAL && lost + 1 >= MAX_WORKER_FAILURES;
                if lost < MAX_WORKER_FAILURES && backed_off < MAX_BACKOFF_FAILURES && !real {
                    wrong.push(format!(
                        "job {id} failed without having been tried as often as it may: {:?}, {of_task:?}",
                        job.failure
                    ));
                }
            }
            state => wrong.push(format!("job {id} is {state:?}, which it was not asked to be")),
        }
    }
    if failed > (jobs.len() / 50).max(2) {
        wrong.push(format!("{failed} of {} jobs failed", jobs.len()));
    }
    failed
}

/// What succeeded has all it was to make, byte for byte what the attempt that made it wrote.
async fn outputs(
    site: &Site,
    conn: &mut PgConnection,
    ledger: &Ledger,
    jobs: &HashMap<String, Job>,
    wrong: &mut Vec<String>,
) {
    let mut made: HashMap<(String, String), (String, i64, i64)> = HashMap::new();
    for row in rows(conn, "SELECT job, name, attempt, output, size FROM objects").await {
        made.insert((row.get(0), row.get(1)), (row.get(2), row.get(3), row.get(4)));
    }
    for (n, (id, job)) in jobs.iter().enumerate() {
        let wanted = ledger.jobs[id];
        let names: Vec<&str> = job.outputs.iter().map(|output| output.name.as_str()).collect();
        let expected = if job.state == JobState::Succeeded { wanted.kind.makes().0 } else { &[] };
        if names != expected {
            wrong.push(format!("job {id} ({:?}) has the outputs {names:?}", job.state));
        }
        for output in &job.outputs {
            let url = &output.url;
            let got =
                client(site, n % 3, wanted.tenant).try_call("GET", url, "", Duration::from_secs(20)).await;
            let Some(got) = got.filter(|got| got.status == 200) else {
                wrong.push(format!("{} of job {id} cannot be fetched", output.name));
                continue;
            };
            let parts: Vec<&[u8]> = got.body.chunks(mpegflow_protocol::limits::PART_SIZE as usize).collect();
            let digest = output_digest(&parts);
            if (digest.size, &digest.digest) != (output.size, &output.digest) {
                wrong.push(format!("{} of job {id} is not what its digest says", output.name));
            }
            let Some((attempt, number, _)) = made.get(&(id.clone(), output.name.clone())) else {
                wrong.push(format!("{} of job {id} is in no manifest", output.name));
                continue;
            };
            let large = got.body.len() as u64 > mpegflow_protocol::limits::PART_SIZE;
            if wanted.tenant != REAL && got.body != output_bytes(attempt, *number as u32, large) {
                wrong.push(format!("{} of job {id} is not what {attempt} wrote", output.name));
            }
        }
    }
}

/// Each task has succeeded once, by one attempt, and each job was committed once, as the events say too.
async fn once(conn: &mut PgConnection, wrong: &mut Vec<String>) {
    let never = [
        ("attempts that are live", "SELECT id FROM attempts WHERE state = 'live'"),
        ("leases", "SELECT attempt FROM leases"),
        (
            "tasks that more or fewer than one attempt succeeded at",
            "SELECT t.id FROM tasks t LEFT JOIN attempts a ON a.task = t.id AND a.state = 'succeeded' WHERE t.state = 'succeeded'
             GROUP BY t.id, t.done_by HAVING count(a.id) <> 1 OR min(a.id) <> t.done_by",
        ),
        (
            "attempts that succeeded at a task that did not",
            "SELECT a.id FROM attempts a JOIN tasks t ON t.id = a.task WHERE a.state = 'succeeded' AND t.state <> 'succeeded'",
        ),
        (
            "attempts after the one that succeeded",
            "SELECT b.id FROM attempts a JOIN attempts b ON b.task = a.task AND b.epoch > a.epoch WHERE a.state = 'succeeded'",
        ),
        (
            "tasks of another epoch than their last attempt",
            "SELECT t.id FROM tasks t JOIN attempts a ON a.task = t.id GROUP BY t.id, t.epoch HAVING max(a.epoch) <> t.epoch",
        ),
        (
            "objects that another attempt made than the one that succeeded",
            "SELECT o.attempt FROM objects o LEFT JOIN tasks t ON t.done_by = o.attempt AND t.job = o.job WHERE t.id IS NULL",
        ),
        (
            "jobs that succeeded without all of their tasks",
            "SELECT j.id FROM jobs j JOIN tasks t ON t.job = j.id WHERE j.state = 'succeeded' AND t.state <> 'succeeded'",
        ),
        (
            "jobs that were not created once and finished once",
            "SELECT j.id FROM jobs j LEFT JOIN events e ON e.job = j.id GROUP BY j.id
             HAVING count(*) FILTER (WHERE e.kind = 'created') <> 1 OR count(*) FILTER (WHERE e.kind = 'finished') <> 1",
        ),
        (
            "jobs with more or fewer successes among their events than among their tasks",
            "SELECT j.id FROM jobs j LEFT JOIN events e ON e.job = j.id AND e.kind = 'task_succeeded' GROUP BY j.id
             HAVING count(e.seq) <> (SELECT count(*) FROM tasks t WHERE t.job = j.id AND t.state = 'succeeded')",
        ),
        (
            "jobs with more or fewer starts among their events than attempts",
            "SELECT j.id FROM jobs j LEFT JOIN events e ON e.job = j.id AND e.kind = 'task_started' GROUP BY j.id
             HAVING count(e.seq) <> (SELECT count(*) FROM attempts a WHERE a.job = j.id)",
        ),
        (
            "attempts that were canceled with jobs that were not",
            "SELECT a.id FROM attempts a JOIN jobs j ON j.id = a.job WHERE a.state = 'canceled' AND j.state <> 'canceled'",
        ),
        (
            "workers that are counted as having something",
            "SELECT id FROM workers WHERE live <> 0",
        ),
    ];
    for (what, sql) in never {
        let found: Vec<String> = rows(conn, sql).await.iter().map(|row| row.get(0)).collect();
        if !found.is_empty() {
            wrong.push(format!("{} {what}: {:?}", found.len(), &found[..found.len().min(3)]));
        }
    }
}

/// What workers were told agrees with what the database says, and nobody changed anything after its attempt had ended.
async fn fenced(conn: &mut PgConnection, ledger: &Ledger, wrong: &mut Vec<String>) {
    let mut ends: HashMap<String, (String, Option<i64>)> = HashMap::new();
    for row in rows(conn, "SELECT id, state, ended_at FROM attempts").await {
        ends.insert(row.get(0), (row.get(1), row.get(2)));
    }
    for attempt in &ledger.completed {
        // What comes of a job that its tenant is canceling is taken and thrown away.
        if ends.get(attempt).is_none_or(|(state, _)| state != "succeeded" && state != "canceled") {
            wrong.push(format!("{attempt} was told that it is done, and is {:?}", ends.get(attempt)));
        }
    }
    for (attempt, sent, what) in &ledger.changes {
        let Some((state, Some(ended))) = ends.get(attempt) else { continue };
        if *sent > ended + ABOUT_MS {
            wrong.push(format!(
                "{attempt} ({state}) changed something {} ms after its end: {what}",
                sent - ended
            ));
        }
    }
}

/// The chain of events verifies against the checkpoints that brokers signed meanwhile.
fn log(site: &Site, wrong: &mut Vec<String>) {
    let path = |name: &str| site.dir.path().join(name);
    let verified = Command::new(program("mpegflow-broker"))
        .arg("--data")
        .arg(path("admin"))
        .arg("--database-url-file")
        .arg(path("database-url"))
        .args(["audit", "verify", "--public-key"])
        .arg(&site.audit_public)
        .arg("--checkpoints")
        .arg(path("checkpoints"))
        .output()
        .unwrap();
    if !verified.status.success() {
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        wrong.push(format!(
            "the audit log: {} {said}{}",
            verified.status,
            String::from_utf8_lossy(&verified.stderr)
        ));
    }
}

/// No log, no span, no answer to a call that failed and no metric has a secret in it, nor what signs a request to storage; nobody panicked.
async fn secrets(site: &Site, ledger: &Ledger, wrong: &mut Vec<String>) {
    let mut secrets: BTreeMap<String, &str> = BTreeMap::new();
    for secret in &ledger.secrets {
        let what = if secret.starts_with("mfj_") { "a join token" } else { "an API key or a capability" };
        secrets.insert(secret.clone(), what);
    }
    secrets.insert(site.s3.password.clone(), "the bucket's secret");
    secrets.insert(postgres::PASSWORD.into(), "the database's password");
    secrets.insert(REDIS_PASSWORD.into(), "Redis' password");
    for word in ["X-Amz-Signature", "X-Amz-Credential", "AWS4-HMAC-SHA256", "BEGIN PRIVATE KEY", "Bearer mf"]
    {
        secrets.insert(word.into(), "a signature or a key");
    }
    for (file, what) in
        [("identity/capability.key", "the capabilities' key"), ("audit.key", "the audit log's key")]
    {
        let bytes = std::fs::read(site.dir.path().join(file)).unwrap();
        secrets.insert(crate::common::hex(&bytes), what);
    }
    // What all of them begin with keeps this from being millions of searches.
    let find = |text: &str| {
        let line = text.lines().find(|line| secrets.keys().any(|secret| line.contains(secret.as_str())))?;
        secrets.iter().find(|(secret, _)| line.contains(secret.as_str())).map(|(_, what)| *what)
    };
    let tokens: BTreeSet<&str> = secrets.keys().map(String::as_str).collect();
    let has_token = |text: &str| {
        let of = |part: &'static str| move |c: char| !(c.is_ascii_alphanumeric() || part.contains(c));
        ["-_.", "-_./+="].iter().any(|part| text.split(of(part)).any(|word| tokens.contains(word)))
    };
    for secret in &ledger.secrets {
        assert!(
            has_token(&format!("a=\"{secret}\"")) && has_token(&format!("a={secret}, b")),
            "the search finds nothing"
        );
    }
    let few: BTreeMap<&String, &&str> =
        secrets.iter().filter(|(s, _)| !ledger.secrets.contains(*s)).collect();
    for path in site.logs() {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        if let Some((_, what)) = few.iter().find(|(secret, _)| text.contains(secret.as_str())) {
            wrong.push(format!("{} has {what} in it", path.display()));
        }
        if has_token(&text) {
            wrong.push(format!("{} has a key, token or capability in it", path.display()));
        }
        if text.contains("panicked at") {
            let line = text.lines().find(|line| line.contains("panicked at")).unwrap_or_default();
            wrong.push(format!("{}: {line}", path.display()));
        }
    }
    let spans = site.collector.spans();
    for span in &spans {
        let text = format!("{span:?}");
        if let Some(what) = find(&text) {
            wrong.push(format!("a span `{}` has {what} in it", span.name));
        }
    }
    let names: BTreeSet<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    println!("  {} spans of {} names", spans.len(), names.len());
    if !names.contains("job") {
        wrong.push(format!("no job is among the spans: {names:?}"));
    }
    for text in ledger.refusals.keys() {
        if let Some(what) = find(text) {
            wrong.push(format!("an answer has {what} in it"));
        }
    }
    for n in 0..site.replicas.len() {
        let metrics = Client::new(format!("http://{}", site.metrics_of(n)), None, None);
        match metrics.try_call("GET", "/metrics", "", Duration::from_secs(20)).await {
            Some(answer) if answer.status == 200 => {
                if let Some(what) = find(&answer.text()) {
                    wrong.push(format!("the metrics of replica {n} have {what} in them"));
                }
            }
            _ => wrong.push(format!("replica {n} has no metrics")),
        }
        let pid = site.replicas[n].child.as_ref().unwrap().id();
        for file in ["cmdline", "environ"] {
            let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            if let Some(what) = find(&String::from_utf8_lossy(&text)) {
                wrong.push(format!("the {file} of replica {n} has {what} in it"));
            }
        }
    }
}

/// After a sweep, storage has what manifests and uploads name, and nothing else: no multipart upload that somebody left open.
async fn nothing_left(site: &Site, conn: &mut PgConnection, ledger: &Ledger, wrong: &mut Vec<String>) {
    let mut config = Config::new(site.dir.path().join("last"));
    config.database = Some(site.database.config());
    config.identity = Some(site.dir.path().join("identity"));
    let storage = site.s3.objects();
    config.objects = Some(Arc::new(site.s3.objects()));
    let opened = Opened::open(&config).await.unwrap();
    opened.engine().sweep().await.unwrap();
    opened.engine().sweep_orphans(None).await.unwrap();
    let known = "SELECT DISTINCT attempt FROM objects UNION SELECT id FROM uploads";
    let known: BTreeSet<String> = rows(conn, known).await.iter().map(|row| row.get(0)).collect();
    let owners = owners(&storage, 1_000).await.into_iter().map(|owner| match owner {
        Owner::Attempt(_, _, attempt) => attempt.to_string(),
        Owner::Upload(_, upload) => upload.to_string(),
    });
    let there: BTreeSet<String> = owners.collect();
    for id in there.difference(&known) {
        wrong.push(format!("storage still has {id}"));
    }
    for id in known.difference(&there) {
        wrong.push(format!("storage does not have {id}"));
    }
    for path in site.s3.kept() {
        let path = path.display().to_string();
        let open = path.contains("/multipart/") || path.ends_with(".open") || path.contains(".sgwtmp");
        if open || !known.iter().any(|id| path.contains(id.as_str())) {
            wrong.push(format!("storage still has a file of nobody: {path}"));
        }
    }
    for (id, size) in &ledger.uploads {
        let row = format!("SELECT received FROM uploads WHERE id = '{id}' AND size = {size}");
        if count(conn, &row).await != i64::try_from(*size).unwrap() {
            wrong.push(format!("upload {id} is not whole"));
        }
    }
    opened.close().await;
}
