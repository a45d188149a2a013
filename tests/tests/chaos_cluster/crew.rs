//! Workers that make their results up, so that thousands of tasks take a minute, and tenants with jobs for them. Both speak the
//! real APIs over real sockets, go from replica to replica, and write down what they were told.

use crate::common::{self, Answer, Client};
use crate::random::{Random, hash};
use crate::site::{LEASE, REAL, Site, TENANTS};
use mpegflow_protocol::api::{Job, JobState, Upload};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::limits::PART_SIZE;
use mpegflow_protocol::worker::{Complete, Enroll, Enrolled, Fail, Heartbeat, JoinFile, Lease, LeaseReply};
use mpegflow_protocol::worker::{LeaseRequest, PART_DIGEST_HEADER, TaskProgress};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// A call that is not answered within this time is made again.
const CALL: Duration = Duration::from_secs(8);
/// A worker that gets nothing through for this long gives its task up.
const PATIENCE: Duration = Duration::from_secs(12);

/// What the test was told, by id; the database is held against it in the end.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Jobs whose creation was acknowledged.
    pub(crate) jobs: HashMap<String, Wanted>,
    /// Attempts whose completion was acknowledged.
    pub(crate) completed: HashSet<String>,
    /// Calls that were acknowledged, and changed something: attempt, when they were sent (ms since 1970), what they were.
    pub(crate) changes: Vec<(String, i64, &'static str)>,
    /// What must be in no log.
    pub(crate) secrets: HashSet<String>,
    /// What must not happen.
    pub(crate) wrong: Vec<String>,
    /// Refusals, and how many: the texts must not hold a secret.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Upload ids that were acknowledged as whole, with their size.
    pub(crate) uploads: HashMap<String, u64>,
}

/// What is expected of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) tenant: usize,
    pub(crate) kind: Kind,
    pub(crate) canceled: bool,
}

/// What a job is to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Audio,
    Film,
    Look,
}

impl Kind {
    fn spec(self, upload: &str) -> String {
        let rest = match self {
            Self::Audio => r#""preset":"audio""#,
            Self::Film => r#""preset":"mp4""#,
            Self::Look => r#""preset":"audio","dry_run":true"#,
        };
        format!(r#"{{"version":1,"input":{{"upload":"{upload}"}},{rest}}}"#)
    }

    /// Names of the outputs, and the number of tasks.
    pub(crate) fn makes(self) -> (&'static [&'static str], i64) {
        match self {
            Self::Audio => (&["audio.m4a"], 4),
            Self::Film => (&["video.mp4"], 4),
            Self::Look => (&[], 1),
        }
    }
}

/// What all of the crew share.
pub(crate) struct Shared {
    ledger: Mutex<Ledger>,
    pub(crate) join: JoinFile,
    keys: Vec<String>,
    tenant_ids: Vec<String>,
    workers_at: Vec<String>,
    public_at: Vec<String>,
    /// No more jobs are submitted.
    pub(crate) enough: AtomicBool,
    /// Unfinished jobs as the database last said.
    pub(crate) unfinished: AtomicU64,
    /// Tasks that were acknowledged as done.
    pub(crate) done: AtomicU64,
    /// Workers may go on; those with a number below this are frozen.
    frozen: watch::Sender<usize>,
    database: sqlx::postgres::PgConnectOptions,
}

impl Shared {
    pub(crate) async fn new(site: &Site) -> Arc<Self> {
        let mut tenant_ids = Vec::new();
        for tenant in 0..TENANTS.len() {
            tenant_ids.push(site.tenant_id(tenant).await);
        }
        let at = |scheme: &str, port: u16| format!("{scheme}://127.0.0.1:{port}");
        let mut ledger = Ledger::default();
        ledger.secrets.extend(site.keys.iter().cloned());
        ledger.secrets.insert(site.join.token.clone());
        Arc::new(Self {
            ledger: Mutex::new(ledger),
            join: site.join.clone(),
            keys: site.keys.clone(),
            tenant_ids,
            workers_at: site.replicas.iter().map(|r| at("https", r.worker.port)).collect(),
            public_at: site.replicas.iter().map(|r| at("http", r.public.port)).collect(),
            enough: AtomicBool::new(false),
            unfinished: AtomicU64::new(0),
            done: AtomicU64::new(0),
            frozen: watch::Sender::new(0),
            database: sqlx::postgres::PgConnectOptions::new_without_pgpass()
                .socket(site.postgres.dir())
                .port(site.postgres.port())
                .username("mpegflow")
                .database(&site.database.name),
        })
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// What SIGSTOP is to a process: the first so many workers do nothing until they are told otherwise.
    pub(crate) fn freeze(&self, below: usize) {
        self.frozen.send_replace(below);
    }

    async fn thawed(&self, worker: usize) {
        let _ = self.frozen.subscribe().wait_for(|below| worker >= *below).await;
    }

    fn wrong(&self, what: String) {
        eprintln!("WRONG: {what}");
        self.ledger().wrong.push(what);
    }

    fn refused(&self, answer: &Answer) {
        let text = format!("{} {}", answer.status, answer.text());
        *self.ledger().refusals.entry(text).or_default() += 1;
    }

    /// Says how many jobs have not ended, as long as the database answers.
    pub(crate) async fn count(self: Arc<Self>) {
        use sqlx::ConnectOptions as _;
        let mut conn = None;
        loop {
            if conn.is_none() {
                let new = tokio::time::timeout(CALL, self.database.connect()).await;
                conn = new.ok().and_then(Result::ok);
            }
            let query = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running', 'canceling')";
            if let Some(open) = &mut conn {
                match tokio::time::timeout(CALL, sqlx::query_scalar::<_, i64>(query).fetch_one(open)).await {
                    Ok(Ok(count)) => self.unfinished.store(count.unsigned_abs(), Ordering::Relaxed),
                    _ => conn = None,
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Binds a worker to a tenant, as a pool of the tenant's own does.
    async fn bind(&self, worker: &str, tenant: usize) -> bool {
        use sqlx::ConnectOptions as _;
        let bound = async {
            let mut conn = self.database.connect().await.ok()?;
            let update = "UPDATE workers SET tenant = $2 WHERE id = $1";
            let update = sqlx::query(update).bind(worker).bind(&self.tenant_ids[tenant]);
            Some(update.execute(&mut conn).await.ok()?.rows_affected() == 1)
        };
        matches!(tokio::time::timeout(CALL, bound).await, Ok(Some(true)))
    }
}

/// Bytes of an output: whoever knows the attempt and the output's number knows them.
pub(crate) fn output_bytes(attempt: &str, output: u32, large: bool) -> Vec<u8> {
    let seed = hash(&format!("{attempt}/{output}"));
    let len = if large { PART_SIZE as usize + 4_321 } else { 200 + (seed % 3_000) as usize };
    let mut bytes = format!("{attempt} {output} {}\n", u8::from(large)).into_bytes();
    let mut random = Random::new(seed);
    while bytes.len() < len {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Whether these are the whole bytes of some output.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    let mut words = line.split(' ');
    match (words.next(), words.next().and_then(|n| n.parse().ok()), words.next()) {
        (Some(attempt), Some(output), Some(large)) => bytes == output_bytes(attempt, output, large == "1"),
        _ => false,
    }
}

/// Bytes of an upload of that size.
pub(crate) fn upload_bytes(size: u64) -> Vec<u8> {
    let mut random = Random::new(size);
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < size {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(size as usize);
    bytes
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A worker with an identity.
struct Worker {
    shared: Arc<Shared>,
    number: usize,
    clients: Vec<Client>,
    random: Random,
}

enum Told {
    Done,
    /// The lease is over.
    Lost,
    /// The broker does not know this worker.
    Unknown,
    Refused(Answer),
    /// Nobody answered, or only by errors, for as long as the patience went.
    Nobody {
        full: bool,
    },
}

/// Does tasks of one tenant, under ever new identities.
pub(crate) async fn work(shared: Arc<Shared>, number: usize, seed: u64) {
    let mut random = Random::new(seed);
    loop {
        // Of whichever tenant: one that has nothing to do makes its workers retire.
        let tenant = random.below(REAL);
        let Some(mut worker) = enrol(&shared, number, tenant, &mut random).await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        worker.lease_and_work().await;
        // As whatever starts workers waits before it starts one again: enrolments cost handshakes.
        tokio::time::sleep(Duration::from_millis(500 + random.below(1_000) as u64)).await;
    }
}

async fn enrol(shared: &Arc<Shared>, number: usize, tenant: usize, random: &mut Random) -> Option<Worker> {
    shared.thawed(number).await;
    let join = &shared.join;
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let enroll = Enroll { token: join.token.clone(), csr, pool: join.pool.clone(), version: "chaos".into() };
    let at = &shared.workers_at[random.below(shared.workers_at.len())];
    let anonymous = Client::new(at.clone(), Some(&join.ca), None);
    let body = serde_json::to_vec(&enroll).unwrap();
    let answer = anonymous.try_call("POST", "/worker/v1/enroll", body, CALL).await?;
    if answer.status != 200 {
        shared.refused(&answer);
        return None;
    }
    let enrolled: Enrolled = answer.json();
    if !shared.bind(&enrolled.worker.to_string(), tenant).await {
        return None;
    }
    let key = key.serialize_der();
    let client = |at: &String| Client::new(at.clone(), Some(&join.ca), Some((&enrolled.certificate, &key)));
    let clients = shared.workers_at.iter().map(client).collect();
    Some(Worker { shared: Arc::clone(shared), number, clients, random: Random::new(random.next()) })
}

impl Worker {
    fn any(&mut self) -> Client {
        self.clients[self.random.below(self.clients.len())].clone()
    }

    async fn lease_and_work(&mut self) {
        loop {
            self.shared.thawed(self.number).await;
            let body = serde_json::to_vec(&LeaseRequest { wait_ms: 1_000 }).unwrap();
            let answer = self.any().try_call("POST", "/worker/v1/lease", body, CALL).await;
            let Some(answer) = answer else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            match answer.status.as_u16() {
                200 => match answer.json() {
                    LeaseReply::Lease(lease) => {
                        if !self.attempt(&lease).await {
                            return;
                        }
                    }
                    LeaseReply::Idle {} => {}
                    LeaseReply::Retire {} => return,
                },
                401 => return,
                status => {
                    self.shared.refused(&answer);
                    if status < 500 {
                        self.shared.wrong(format!("a lease was refused: {status} {}", answer.text()));
                    }
                    tokio::time::sleep(Duration::from_millis(150)).await;
                }
            }
        }
    }

    /// One attempt, with heartbeats beside it. False where the identity is not known any more.
    async fn attempt(&mut self, lease: &Lease) -> bool {
        self.shared.ledger().secrets.insert(lease.capability.clone());
        let beats = Worker {
            shared: Arc::clone(&self.shared),
            number: self.number,
            clients: self.clients.clone(),
            random: Random::new(self.random.next()),
        };
        let told = tokio::select! {
            told = self.task(lease) => told,
            told = beats.beat(lease) => told,
        };
        match told {
            Told::Done | Told::Lost => {}
            Told::Unknown => return false,
            Told::Refused(answer) => {
                let task = lease.task.name();
                self.shared.wrong(format!(
                    "{task} {} was refused: {} {}",
                    lease.attempt,
                    answer.status,
                    answer.text()
                ));
            }
            Told::Nobody { full } => {
                let code = if full { FailureCode::StorageFull } else { FailureCode::StorageError };
                let fail = Fail { failure: Failure::new(code, "no answer"), evidence: None };
                self.end(lease, "fail", serde_json::to_vec(&fail).unwrap()).await;
            }
        }
        true
    }

    async fn beat(mut self, lease: &Lease) -> Told {
        loop {
            tokio::time::sleep(LEASE / 4).await;
            let beat = Heartbeat {
                progress: TaskProgress::default(),
                log: vec![],
                spans: Default::default(),
                counts: Default::default(),
            };
            let body = serde_json::to_vec(&beat).unwrap();
            let told = self.once(lease, "heartbeat", "POST", "heartbeat", body, None).await;
            if matches!(told, Told::Lost | Told::Unknown) {
                return told;
            }
        }
    }

    async fn task(&mut self, lease: &Lease) -> Told {
        // Some are given back, and some take longer than a lease.
        match self.random.below(60) {
            0 => return self.end(lease, "release", Vec::new()).await,
            1 => tokio::time::sleep(LEASE + Duration::from_secs(1)).await,
            _ => tokio::time::sleep(Duration::from_millis(self.random.below(60) as u64)).await,
        }
        for input in 0..lease.inputs.len() {
            if self.random.below(3) == 0 {
                match self.read(lease, input).await {
                    Told::Done => {}
                    other => return other,
                }
            }
        }
        let attempt = lease.attempt.to_string();
        let mut outputs = Vec::new();
        for (n, slot) in lease.outputs.iter().enumerate() {
            let large = n == 0 && slot.max_bytes > 2 * PART_SIZE && self.random.below(50) == 0;
            let bytes = output_bytes(&attempt, n as u32, large);
            let parts: Vec<&[u8]> = bytes.chunks(PART_SIZE as usize).collect();
            for (part, bytes) in parts.iter().enumerate() {
                let path = format!("outputs/{n}/parts/{part}");
                let digest = common::hex(&common::sha256(bytes));
                match self.call(lease, "part", "PUT", &path, bytes.to_vec(), Some(digest)).await {
                    Told::Done => {}
                    other => return other,
                }
            }
            outputs.push(common::output_digest(&parts));
        }
        let result = common::result_for(lease, &outputs);
        let complete = Complete { result, outputs, evidence: common::evidence() };
        self.end(lease, "complete", serde_json::to_vec(&complete).unwrap()).await
    }

    async fn end(&mut self, lease: &Lease, how: &'static str, body: Vec<u8>) -> Told {
        self.call(lease, how, "POST", how, body, None).await
    }

    async fn read(&mut self, lease: &Lease, input: usize) -> Told {
        let started = Instant::now();
        let path = format!("/worker/v1/attempts/{}/inputs/{input}", lease.attempt);
        while started.elapsed() < PATIENCE {
            self.shared.thawed(self.number).await;
            let client = self.any().with("authorization", format!("Bearer {}", lease.capability));
            let Some(answer) = client.try_call("GET", &path, "", CALL).await else {
                tokio::time::sleep(Duration::from_millis(150)).await;
                continue;
            };
            match answer.status.as_u16() {
                200 => {
                    let size = lease.inputs[input].size;
                    let of_upload = ["probe", "encode"].contains(&lease.task.name());
                    let right =
                        if of_upload { answer.body == upload_bytes(size) } else { is_whole(&answer.body) };
                    if !right {
                        let len = answer.body.len();
                        self.shared.wrong(format!(
                            "input {input} of {}: {len} bytes of {size} are not right",
                            lease.attempt
                        ));
                    }
                    return Told::Done;
                }
                401 => return Told::Unknown,
                409 => return Told::Lost,
                500.. => self.shared.refused(&answer),
                _ => return Told::Refused(answer),
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        Told::Nobody { full: false }
    }

    /// A call, until it is answered.
    async fn call(
        &mut self,
        lease: &Lease,
        what: &'static str,
        method: &str,
        path: &str,
        body: Vec<u8>,
        digest: Option<String>,
    ) -> Told {
        let started = Instant::now();
        loop {
            let told = self.once(lease, what, method, path, body.clone(), digest.clone()).await;
            if !matches!(told, Told::Nobody { .. }) || started.elapsed() > PATIENCE {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(100 + self.random.below(200) as u64)).await;
        }
    }

    async fn once(
        &mut self,
        lease: &Lease,
        what: &'static str,
        method: &str,
        path: &str,
        body: Vec<u8>,
        digest: Option<String>,
    ) -> Told {
        self.shared.thawed(self.number).await;
        let mut client = self.any().with("authorization", format!("Bearer {}", lease.capability));
        if let Some(digest) = digest {
            client = client.with(PART_DIGEST_HEADER, digest);
        }
        let attempt = lease.attempt.to_string();
        let (sent, path) = (now_ms(), format!("/worker/v1/attempts/{attempt}/{path}"));
        let Some(answer) = client.try_call(method, &path, body, CALL).await else {
            return Told::Nobody { full: false };
        };
        match answer.status.as_u16() {
            200..300 => {
                let mut ledger = self.shared.ledger();
                ledger.changes.push((attempt.clone(), sent, what));
                if what == "complete" {
                    ledger.completed.insert(attempt);
                    self.shared.done.fetch_add(1, Ordering::Relaxed);
                }
                Told::Done
            }
            401 => Told::Unknown,
            409 => Told::Lost,
            status @ 500.. => {
                self.shared.refused(&answer);
                Told::Nobody { full: status == 507 }
            }
            _ => Told::Refused(answer),
        }
    }
}

/// A tenant that submits jobs, cancels some and reads what came of others.
pub(crate) struct Tenant {
    shared: Arc<Shared>,
    number: usize,
    clients: Vec<Client>,
    random: Random,
    next: u64,
    uploads: Vec<String>,
    /// Jobs whose output was not looked at yet.
    unread: Vec<String>,
}

impl Tenant {
    pub(crate) fn new(shared: &Arc<Shared>, number: usize, seed: u64) -> Self {
        let clients = shared
            .public_at
            .iter()
            .map(|at| {
                Client::new(at.clone(), None, None)
                    .with("authorization", format!("Bearer {}", shared.keys[number]))
            })
            .collect();
        let shared = Arc::clone(shared);
        Self { shared, number, clients, random: Random::new(seed), next: 0, uploads: vec![], unread: vec![] }
    }

    fn any(&mut self) -> Client {
        self.clients[self.random.below(self.clients.len())].clone()
    }

    /// A call that may be repeated, until it is answered by something else than the server's trouble.
    pub(crate) async fn call(&mut self, method: &str, path: &str, body: &[u8], key: Option<&str>) -> Answer {
        loop {
            let mut client = self.any();
            if let Some(key) = key {
                client = client.with("idempotency-key", key);
            }
            if let Some(answer) = client.try_call(method, path, body.to_vec(), CALL).await {
                if answer.status.as_u16() < 500 && answer.status != 429 {
                    return answer;
                }
                self.shared.refused(&answer);
            }
            tokio::time::sleep(Duration::from_millis(100 + self.random.below(200) as u64)).await;
        }
    }

    fn key(&mut self) -> String {
        self.next += 1;
        format!("chaos-{}-{}", self.number, self.next)
    }

    /// Sends an upload, going on where it was whenever it breaks off.
    pub(crate) async fn upload(&mut self, bytes: &[u8]) -> String {
        let key = self.key();
        let body = format!(r#"{{"size":{}}}"#, bytes.len());
        let created = self.call("POST", "/v1/uploads", body.as_bytes(), Some(&key)).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let id = created.json::<Upload>().id.to_string();
        let path = format!("/v1/uploads/{id}");
        loop {
            let upload: Upload = self.call("GET", &path, b"", None).await.json();
            if upload.offset == bytes.len() as u64 {
                break;
            }
            let to = format!("{path}?offset={}", upload.offset);
            let rest = bytes[upload.offset as usize..].to_vec();
            let client = self.any();
            match client.try_call("PUT", &to, rest, CALL).await {
                Some(answer) if answer.status == 200 => {}
                // Somebody else seems to write it: the call before, which nobody waits for any more.
                Some(answer) if answer.status == 409 || answer.status.as_u16() >= 500 => {
                    self.shared.refused(&answer);
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                Some(answer) if answer.status == 408 => {}
                Some(answer) => {
                    self.shared.wrong(format!("a part of an upload: {} {}", answer.status, answer.text()));
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                None => tokio::time::sleep(Duration::from_millis(300)).await,
            }
        }
        self.shared.ledger().uploads.insert(id.clone(), bytes.len() as u64);
        id
    }

    /// Submits a job; however often it has to ask, there is one.
    pub(crate) async fn submit(&mut self, upload: &str, kind: Kind) -> String {
        let key = self.key();
        let answer = self.call("POST", "/v1/jobs", kind.spec(upload).as_bytes(), Some(&key)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let id = answer.json::<Job>().id.to_string();
        let wanted = Wanted { tenant: self.number, kind, canceled: false };
        self.shared.ledger().jobs.insert(id.clone(), wanted);
        id
    }

    pub(crate) async fn has_ended(&mut self, id: &str) -> bool {
        let answer = self.call("GET", &format!("/v1/jobs/{id}"), b"", None).await;
        answer.status == 200 && answer.json::<Job>().state.is_final()
    }

    /// What it has to begin with, while all is well.
    pub(crate) async fn begin(&mut self) {
        for size in [1_000 + self.number as u64, 40_000] {
            let upload = self.upload(&upload_bytes(size)).await;
            self.uploads.push(upload);
        }
    }

    pub(crate) async fn run(mut self, in_flight: u64) {
        loop {
            let enough = self.shared.enough.load(Ordering::Relaxed);
            if enough {
                return;
            }
            if self.shared.unfinished.load(Ordering::Relaxed) >= in_flight {
                self.look().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            if self.random.below(40) == 0 {
                // Of more than one part of storage's, now and then.
                let large = self.random.below(3) == 0;
                let size = if large { 9 << 20 } else { 1 + self.random.below(90_000) as u64 };
                let upload = self.upload(&upload_bytes(size)).await;
                self.uploads.push(upload);
            }
            let upload = self.uploads[self.random.below(self.uploads.len())].clone();
            let kind = match self.random.below(10) {
                0..=5 => Kind::Audio,
                6 | 7 => Kind::Film,
                _ => Kind::Look,
            };
            let id = self.submit(&upload, kind).await;
            if self.random.below(30) == 0 {
                let answer = self.call("POST", &format!("/v1/jobs/{id}/cancel"), b"", None).await;
                // Ended already, or canceled by the call before, whose answer was lost.
                if answer.status != 200 && answer.status != 409 {
                    self.shared.wrong(format!("a cancel: {} {}", answer.status, answer.text()));
                }
                if let Some(wanted) = self.shared.ledger().jobs.get_mut(&id) {
                    wanted.canceled = true;
                }
            } else {
                self.unread.push(id);
            }
        }
    }

    /// Reads what a job has made, in the middle of it all: errors may come, other bytes may not.
    async fn look(&mut self) {
        if self.unread.is_empty() {
            return;
        }
        let at = self.random.below(self.unread.len());
        let client = self.any();
        let Some(answer) = client.try_call("GET", &format!("/v1/jobs/{}", self.unread[at]), "", CALL).await
        else {
            return;
        };
        if answer.status != 200 {
            self.shared.refused(&answer);
            if answer.status.as_u16() < 500 {
                self.shared.wrong(format!("job {}: {}", self.unread[at], answer.text()));
            }
            return;
        }
        let job: Job = answer.json();
        if !job.state.is_final() {
            return;
        }
        self.unread.swap_remove(at);
        if job.state == JobState::Succeeded {
            for output in &job.outputs {
                let Some(got) = client.try_call("GET", &output.url, "", CALL).await else { continue };
                if got.status == 200 && !is_whole(&got.body) {
                    self.shared.wrong(format!(
                        "{} of {}: {} bytes are not right",
                        output.name,
                        job.id,
                        got.body.len()
                    ));
                } else if got.status != 200 {
                    self.shared.refused(&got);
                }
            }
        }
    }
}
