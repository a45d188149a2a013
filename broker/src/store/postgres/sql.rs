//! Every statement of the hot path and of the reads, by name. A test has the server parse and plan each of them against the
//! migrated schema, so that a wrong column or type is found before the code that uses it runs.
//!
//! A statement that moves jobs locks in one order: tenant, jobs, tasks or leases, workers, each of them by id, so that two batches
//! never wait for each other. Each is one compare-and-set: it changes rows only through what its first, locking parts return,
//! and READ COMMITTED looks at a locked row again as it is now.

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        $($(#[$doc])* pub(super) const $name: &str = $sql;)*
        /// Each statement with its name.
        pub(super) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

/// The database's time in milliseconds, or the caller's where it gives one. The clock's, not the transaction's, which would
/// stand still while a statement waits for a lock.
macro_rules! now {
    ($parameter:literal) => {
        concat!(
            "(SELECT coalesce($",
            $parameter,
            "::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS now)"
        )
    };
}

macro_rules! listed {
    ($of:literal $first:literal $($more:literal)*) => {
        concat!($of, $first, $(", ", $of, $more),*)
    };
}

/// The columns of a row that is read, each by name and after an alias: one that asked for all of them would fail, wherever it is prepared,
/// as soon as a later release has added another.
macro_rules! columns {
    (job $of:literal) => {
        listed!($of "id" "tenant" "upload" "input_size" "spec" "pool" "state" "media" "planned" "failure" "created_at" "finished_at" "trace")
    };
    (task $of:literal) => {
        listed!($of "id" "job" "tenant" "pool" "kind" "plan" "state" "epoch" "tries" "memory_class" "not_before" "done_by" "result" "digests" "evidence" "last_failure")
    };
    (object $of:literal) => {
        listed!($of "job" "name" "attempt" "output" "size" "parts" "digest" "content_type")
    };
    (event $of:literal) => {
        listed!($of "seq" "job" "kind" "state" "stage" "failure" "at")
    };
    (entry $of:literal) => {
        listed!($of "tenant" "seq" "chained_at" "digest" "hash" "salt" "job" "kind" "state" "stage" "failure" "at")
    };
    (journal $of:literal) => {
        listed!($of "id" "tenant" "job" "kind" "state" "stage" "failure" "at")
    };
    (upload $of:literal) => {
        listed!($of "id" "tenant" "size" "received" "name" "metadata" "quarantined" "created_at" "touched_at")
    };
    (pool $of:literal) => {
        listed!($of "name" "namespace" "account" "uid" "generation" "tenant" "closed" "max_workers" "policy" "storage")
    };
    (verdict $of:literal) => {
        listed!($of "pool" "node" "policy" "verified" "reason" "expires_at")
    };
    (ban $of:literal) => {
        listed!($of "name" "reason" "at")
    };
    (webhook $of:literal) => {
        listed!($of "id" "tenant" "url" "types" "description" "managed" "disabled" "cursor" "secrets" "created_at" "succeeded_at")
    };
    (delivery $of:literal) => {
        listed!($of "id" "webhook" "type" "job" "body" "state" "attempts" "next_at" "last_status" "last_error" "created_at" "ended_at")
    };
    (rule $of:literal) => {
        listed!($of "id" "tenant" "prefix" "suffix" "job" "poll_seconds" "existing" "managed" "created_at" "cursor" "next_look_at" "looked_at" "problem" "problem_key" "problem_at")
    };
}

statements! {
    // --- leases

    /// Leases that are asked for at once, one entry for each: 1 tasks, 2 workers, 3 attempts, 4 nows or nulls, 5 leases in ms,
    /// 6 most live, 7 the callers' nows. No task and no worker is in it twice. Each stands for itself: one that finds its task
    /// gone keeps none of the others from theirs.
    LEASE = concat!("
        WITH clock AS MATERIALIZED (
            SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
        ), asked AS MATERIALIZED (
            SELECT a.*, (SELECT t.job FROM tasks t WHERE t.id = a.task) AS job
            FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
                AS a (task, worker, attempt, at, lease_ms, most, now)
        ), job AS MATERIALIZED (
            SELECT j.id, j.stage, j.state, j.trace FROM jobs j WHERE j.id = ANY (ARRAY (SELECT asked.job FROM asked))
            ORDER BY j.id FOR NO KEY UPDATE
        ), known AS MATERIALIZED (
            SELECT t.id, t.tenant, t.pool, t.state, t.not_before FROM tasks t
            WHERE t.id = ANY (ARRAY (
                SELECT a.task FROM asked a JOIN job ON job.id = a.job WHERE job.state IN ('queued', 'running')))
            ORDER BY t.id FOR NO KEY UPDATE
        ), task AS MATERIALIZED (
            SELECT a.*, t.tenant FROM known t JOIN asked a ON a.task = t.id JOIN workers w ON w.id = a.worker AND w.pool = t.pool
            WHERE t.state = 'ready' AND t.not_before <= a.now
        ), worker AS MATERIALIZED (
            SELECT w.id FROM workers w WHERE w.id = ANY (ARRAY (SELECT task.worker FROM task))
            ORDER BY w.id FOR NO KEY UPDATE
        ), bound AS (
            UPDATE workers w SET tenant = task.tenant, live = w.live + 1 FROM worker JOIN task ON task.worker = worker.id
            WHERE w.id = worker.id AND (w.tenant IS NULL OR w.tenant = task.tenant) AND w.live < task.most
                AND w.cordoned_at IS NULL AND w.revoked_at IS NULL
                AND NOT EXISTS (SELECT 1 FROM pools p WHERE p.name = w.pool AND p.closed)
            RETURNING w.id
        ), moved AS (
            UPDATE tasks t SET state = 'running', epoch = t.epoch + 1,
                tries = jsonb_set(t.tries::jsonb, '{attempts}', to_jsonb((t.tries::jsonb ->> 'attempts')::bigint + 1))::text
            FROM bound JOIN task ON task.worker = bound.id WHERE t.id = task.task
            RETURNING ", columns!(task "t."), ", t.wall_ms, task.attempt, task.worker, task.lease_ms, task.at, task.now AS callers_now
        ), leased AS (
            INSERT INTO leases (attempt, task, job, worker, epoch, deadline, hard_deadline)
            SELECT m.attempt, m.id, m.job, m.worker, m.epoch, coalesce(m.at, clock.now) + least(m.lease_ms, m.wall_ms),
                coalesce(m.at, clock.now) + m.wall_ms
            FROM moved m, clock
            RETURNING attempt, deadline, hard_deadline
        ), attempt AS (
            INSERT INTO attempts (id, task, job, tenant, worker, epoch, state, started_at)
            SELECT m.attempt, m.id, m.job, m.tenant, m.worker, m.epoch, 'live', coalesce(m.at, clock.now) FROM moved m, clock
        ), started AS (
            UPDATE jobs j SET state = 'running', version = j.version + 1 FROM (SELECT DISTINCT m.job FROM moved m) m WHERE j.id = m.job
        ), told AS (
            INSERT INTO journal (tenant, job, kind, state, stage, at)
            SELECT m.tenant, m.job, 'task_started', 'running', job.stage, m.callers_now FROM moved m JOIN job ON job.id = m.job
        )
        SELECT ", columns!(task "m."), ", task.attempt AS asked, l.deadline, l.hard_deadline, w.tenant AS worker_tenant, task.tenant AS task_tenant, job.trace
        FROM task LEFT JOIN moved m ON m.attempt = task.attempt LEFT JOIN leased l ON l.attempt = task.attempt
        LEFT JOIN job ON job.id = m.job
        LEFT JOIN workers w ON w.id = task.worker");

    /// 1 attempt, 2 worker, 3 epoch.
    LIVE = concat!("SELECT ", columns!(task "t."), ", j.state AS job_state, j.trace, l.deadline, l.hard_deadline
        FROM leases l JOIN tasks t ON t.id = l.task JOIN jobs j ON j.id = l.job
        WHERE l.attempt = $1 AND l.worker = $2 AND l.epoch = $3");

    /// 1 worker.
    LIVE_OF_WORKER = "SELECT live FROM workers WHERE id = $1";

    /// 1 workers.
    WORKERS = "SELECT id, pool, tenant, pod, node, cordoned_at, revoked_at, retired_at, live FROM workers WHERE id = ANY ($1::text[])";

    /// 1 attempts, 2 workers, 3 epochs, 4 lease in ms, 5 now or null: one entry for each renewal. A lease that has run out is
    /// not renewed, even before the ticker has seen it: another may be about to get the task.
    RENEW = "
        WITH asked AS (
            SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
                AS a (attempt, worker, epoch, lease_ms, at)
        ), held AS (
            SELECT l.attempt, a.lease_ms, a.at FROM leases l JOIN asked a USING (attempt, worker, epoch)
            ORDER BY l.attempt FOR NO KEY UPDATE OF l
        )
        UPDATE leases l
        SET deadline = least(l.hard_deadline,
            coalesce(held.at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) + held.lease_ms)
        FROM held
        WHERE l.attempt = held.attempt
            AND l.deadline > coalesce(held.at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
        RETURNING l.attempt, l.worker, l.epoch, l.deadline,
            (SELECT j.state FROM jobs j WHERE j.id = l.job) AS job_state";

    /// 1 now or null, 2 most.
    EXPIRED = concat!("
        SELECT l.attempt, l.worker, l.epoch, l.hard_deadline <= clock.now AS overdue
        FROM leases l, ", now!(1), " clock
        WHERE l.deadline <= clock.now ORDER BY l.deadline LIMIT $2");

    /// 1 attempt, 2 worker, 3 epoch, 4 now or null, 5 output, 6 part, 7 size, 8 digest. The lease's lock keeps the attempt from
    /// ending until the part is recorded.
    RECORD_PART = concat!("
        WITH lease AS (
            SELECT l.attempt FROM leases l
            WHERE l.attempt = $1 AND l.worker = $2 AND l.epoch = $3 AND l.deadline > ", now!(4), "
            FOR KEY SHARE
        ), added AS (
            INSERT INTO parts (attempt, output, part, size, sha256)
            SELECT lease.attempt, $5::bigint, $6::bigint, $7::bigint, $8::bytea FROM lease
            WHERE NOT EXISTS (SELECT 1 FROM announced a WHERE a.attempt = $1 AND a.output = $5 AND a.part = $6
                  AND (a.size <> $7 OR a.sha256 <> $8))
            ON CONFLICT DO NOTHING RETURNING part
        )
        SELECT (SELECT count(*) FROM lease) AS live, (SELECT count(*) FROM added) AS added");

    /// 1 attempt, 2 output.
    PARTS = "SELECT part, size, sha256 FROM parts WHERE attempt = $1 AND output = $2 ORDER BY part";

    /// 1 attempt, 2 worker, 3 epoch, 4 input, 5 version. Of two at once, the later one sees nothing, and asks again.
    PIN_INPUT = "
        WITH lease AS (
            SELECT l.attempt FROM leases l WHERE l.attempt = $1 AND l.worker = $2 AND l.epoch = $3
        ), added AS (
            INSERT INTO pins (attempt, input, version) SELECT lease.attempt, $4::bigint, $5::text FROM lease
            ON CONFLICT DO NOTHING RETURNING version
        )
        SELECT coalesce((SELECT version FROM added), (SELECT p.version FROM pins p WHERE p.attempt = $1 AND p.input = $4))
            AS version FROM lease";
    /// 1 attempt, 2 worker, 3 epoch, 4 output, 5 part, 6 size, 7 digest. Of two at once, the later one sees nothing, and asks again.
    ANNOUNCE_PART = "
        WITH lease AS (
            SELECT l.attempt FROM leases l WHERE l.attempt = $1 AND l.worker = $2 AND l.epoch = $3
        ), added AS (
            INSERT INTO announced (attempt, output, part, size, sha256)
            SELECT lease.attempt, $4::bigint, $5::bigint, $6::bigint, $7::bytea FROM lease
            ON CONFLICT DO NOTHING RETURNING part, size, sha256
        ), here AS (
            SELECT part, size, sha256 FROM added
            UNION ALL
            SELECT a.part, a.size, a.sha256 FROM announced a WHERE a.attempt = $1 AND a.output = $4 AND a.part = $5
        )
        SELECT here.part IS NOT NULL AS there, coalesce(here.part, 0) AS part, coalesce(here.size, 0) AS size,
            coalesce(here.sha256, ''::bytea) AS sha256
        FROM lease LEFT JOIN here ON true LIMIT 1";
    /// Of attempts that have ended.
    ORPHANED_ANNOUNCEMENTS =
        "DELETE FROM announced a WHERE NOT EXISTS (SELECT 1 FROM leases l WHERE l.attempt = a.attempt)";
    /// Of attempts that have ended.
    ORPHANED_PINS = "DELETE FROM pins p WHERE NOT EXISTS (SELECT 1 FROM leases l WHERE l.attempt = p.attempt)";

    // --- the end of an attempt

    /// Attempts that are about to end: 1 attempts, 2 workers, 3 epochs.
    SETTLING = concat!("SELECT ", columns!(job "j."), ", j.version, l.attempt, l.worker, l.epoch, l.task, l.deadline, l.hard_deadline,
            EXISTS (SELECT 1 FROM parts p WHERE p.attempt = l.attempt) AS parted
        FROM unnest($1::text[], $2::text[], $3::bigint[]) AS a (attempt, worker, epoch)
        JOIN leases l USING (attempt, worker, epoch) JOIN jobs j ON j.id = l.job");
    /// 1 attempts.
    PARTS_OF = "
        SELECT attempt, output, part, size, sha256 FROM parts WHERE attempt = ANY ($1::text[]) ORDER BY attempt, output, part";

    /// Attempts that end at once, one entry for each; no job and no worker is in it twice, and each stands for itself.
    /// The fence: 1 jobs, 2 their versions, 3 attempts, 4 workers, 5 epochs, 6 nows or nulls, 7 whether the lease must have run out.
    /// The attempt: 8 states, 9 the callers' nows, 10 failures, 11 evidence.
    /// The task: 12 states, 13 not before, 14 memory classes, 15 tries, 16 last failures, 17 results, 18 digests, 19 evidence.
    /// The job: 20 states, 21 failures, 22 finished at, 23 media, 24 stages. The upload: 25 quarantined.
    /// The next task: 26 ids or nulls, 27 kinds, 28 ordinals, 29 plans, 30 wall times, 31 tries, 32 priorities.
    /// Manifests, an entry for each object: 33 the attempt that ends, 34 names, 35 positions, 36 attempts, 37 outputs, 38 sizes,
    /// 39 parts, 40 digests, 41 content types.
    /// Events, an entry for each: 42 the attempt that ends, 43 kinds, 44 states, 45 failures.
    /// The job again: 46 what is planned.
    SETTLE = "
        WITH clock AS MATERIALIZED (
            SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
        ), asked AS MATERIALIZED (
            SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::boolean[],
                $8::text[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::bigint[], $14::bigint[], $15::text[],
                $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::bigint[], $23::text[],
                $24::text[], $25::boolean[], $26::text[], $27::text[], $28::bigint[], $29::text[], $30::bigint[], $31::text[],
                $32::bigint[], $46::text[])
                AS a (job, version, attempt, worker, epoch, at, run_out,
                    attempt_state, now, attempt_failure, attempt_evidence, task_state, not_before, memory_class, tries,
                    last_failure, result, digests, evidence, job_state, job_failure, finished_at, media,
                    stage, quarantined, next, kind, ordinal, plan, wall_ms, next_tries,
                    priority, planned)
        ), objects_of AS MATERIALIZED (
            SELECT * FROM unnest($33::text[], $34::text[], $35::bigint[], $36::text[], $37::bigint[], $38::bigint[], $39::bigint[],
                $40::text[], $41::text[])
                AS o (by, name, position, attempt, output, size, parts, digest, content_type)
        ), job AS MATERIALIZED (
            SELECT j.id, j.tenant, j.pool, j.upload, j.version FROM jobs j WHERE j.id = ANY ($1::text[])
            ORDER BY j.id FOR NO KEY UPDATE
        ), current AS MATERIALIZED (
            SELECT a.attempt, a.worker, a.epoch, a.at, a.run_out, job.id, job.tenant, job.pool, job.upload
            FROM asked a JOIN job ON job.id = a.job AND job.version = a.version
        ), lease AS MATERIALIZED (
            SELECT l.attempt FROM leases l WHERE l.attempt = ANY (ARRAY (SELECT current.attempt FROM current))
            ORDER BY l.attempt FOR UPDATE
        ), fenced AS (
            DELETE FROM leases l USING lease JOIN current c USING (attempt), clock
            WHERE l.attempt = lease.attempt AND l.worker = c.worker AND l.epoch = c.epoch AND l.job = c.id
                AND (l.deadline <= coalesce(c.at, clock.now)) = c.run_out
            RETURNING l.attempt, l.task, l.worker, c.id AS job, c.tenant, c.pool, c.upload
        ), done AS MATERIALIZED (
            SELECT f.task, f.tenant, f.pool, f.upload, a.* FROM fenced f JOIN asked a USING (attempt)
        ), ended AS (
            UPDATE attempts a SET state = d.attempt_state, ended_at = d.now, failure = d.attempt_failure,
                evidence = d.attempt_evidence, kept = EXISTS (SELECT 1 FROM objects_of o WHERE o.attempt = a.id)
            FROM done d WHERE a.id = d.attempt
        ), kept AS (
            UPDATE attempts a SET kept = TRUE FROM objects_of o JOIN done d ON d.attempt = o.by
            WHERE a.id = o.attempt AND o.attempt <> o.by
        ), parted AS (
            DELETE FROM parts p WHERE p.attempt = ANY (ARRAY (SELECT d.attempt FROM done d))
        ), task AS (
            UPDATE tasks t SET state = d.task_state, not_before = coalesce(d.not_before, t.not_before),
                memory_class = coalesce(d.memory_class, t.memory_class), tries = coalesce(d.tries, t.tries),
                last_failure = coalesce(d.last_failure, t.last_failure), result = coalesce(d.result, t.result),
                digests = coalesce(d.digests, t.digests), evidence = coalesce(d.evidence, t.evidence),
                done_by = CASE WHEN d.task_state = 'succeeded' THEN d.attempt ELSE t.done_by END
            FROM done d WHERE t.id = d.task
            RETURNING t.id, t.state
        ), next AS (
            INSERT INTO tasks (id, job, tenant, pool, kind, ordinal, plan, wall_ms, state, tries, not_before, priority)
            SELECT d.next, d.job, d.tenant, d.pool, d.kind, d.ordinal, d.plan, d.wall_ms, 'ready', d.next_tries, d.now, d.priority
            FROM done d WHERE d.next IS NOT NULL
            RETURNING id
        ), moved AS (
            UPDATE jobs j SET state = d.job_state, failure = d.job_failure, finished_at = d.finished_at,
                media = coalesce(d.media, j.media), planned = coalesce(d.planned, j.planned), stage = d.stage, version = j.version + 1
            FROM done d WHERE j.id = d.job
        ), quarantined AS (
            UPDATE uploads u SET quarantined = TRUE FROM done d WHERE d.quarantined AND u.id = d.upload
        ), quarantined_input AS (
            INSERT INTO quarantined_inputs (input, tenant, at)
            SELECT d.upload, d.tenant, d.now FROM done d
            WHERE d.quarantined AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.id = d.upload)
            ON CONFLICT (input) DO NOTHING
        ), manifest AS (
            INSERT INTO objects (job, name, position, attempt, output, size, parts, digest, content_type)
            SELECT d.job, o.name, o.position, o.attempt, o.output, o.size, o.parts, o.digest, o.content_type
            FROM done d JOIN objects_of o ON o.by = d.attempt
        ), ready AS (
            INSERT INTO outbox (task) SELECT id FROM next UNION ALL SELECT id FROM task WHERE state = 'ready'
        ), told AS (
            INSERT INTO journal (tenant, job, kind, state, stage, failure, at)
            SELECT d.tenant, d.job, e.kind, e.state, d.stage, e.failure, d.now
            FROM done d JOIN unnest($42::text[], $43::text[], $44::text[], $45::text[]) WITH ORDINALITY
                AS e (by, kind, state, failure, position) ON e.by = d.attempt
            ORDER BY e.position
        ), worker AS MATERIALIZED (
            SELECT w.id FROM workers w WHERE w.id = ANY (ARRAY (SELECT d.worker FROM done d)) ORDER BY w.id FOR NO KEY UPDATE
        ), freed AS (
            UPDATE workers w SET live = w.live - 1 FROM worker WHERE w.id = worker.id
        )
        SELECT c.attempt, d.attempt IS NOT NULL AS fenced FROM current c LEFT JOIN done d USING (attempt)";

    // --- jobs

    /// 1 tenant.
    LOCK_TENANT = "SELECT id FROM tenants WHERE id = $1 FOR NO KEY UPDATE";
    /// 1 input.
    QUARANTINED_INPUT = "SELECT 1 AS quarantined FROM quarantined_inputs WHERE input = $1";
    /// 1 tenant, 2 key.
    SEEN = "SELECT request, answer FROM idempotency WHERE tenant = $1 AND key = $2";
    /// 1 tenant, 2 key, 3 request, 4 answer, 5 now.
    KEEP = "INSERT INTO idempotency (tenant, key, request, answer, created_at) VALUES ($1, $2, $3, $4, $5)";
    /// 1 tenant, 2 at least: the count stops there.
    UNFINISHED = "
        SELECT count(*) AS n FROM (
            SELECT 1 FROM jobs WHERE tenant = $1 AND state IN ('queued', 'running', 'canceling') LIMIT $2
        ) unfinished";
    /// 1 job, 2 tenant, 3 upload, 4 input size, 5 spec, 6 pool, 7 now, 8 stage, 9 task, 10 kind, 11 ordinal, 12 plan,
    /// 13 wall time, 14 tries, 15 priority, 16 path, 17 trace.
    SUBMIT = "
        WITH job AS (
            INSERT INTO jobs (id, tenant, upload, input_size, spec, pool, state, stage, created_at, path, trace)
            VALUES ($1, $2, $3, $4, $5, $6, 'queued', $8, $7, $16, $17)
        ), told AS (
            INSERT INTO journal (tenant, job, kind, state, stage, at) VALUES ($2, $1, 'created', 'queued', $8, $7)
        ), ready AS (
            INSERT INTO outbox (task) VALUES ($9)
        )
        INSERT INTO tasks (id, job, tenant, pool, kind, ordinal, plan, wall_ms, state, tries, not_before, priority)
        VALUES ($9, $1, $2, $6, $10, $11, $12, $13, 'ready', $14, $7, $15)";
    /// 1 tenant, 2 path.
    JOB_AT = "SELECT id FROM jobs WHERE tenant = $1 AND path = $2 AND state NOT IN ('failed', 'canceled')";
    /// 1 tenant, 2 job.
    JOB = concat!("SELECT ", columns!(job ""), " FROM jobs WHERE tenant = $1 AND id = $2 AND deleted_at IS NULL");
    /// 1 tenant, 2 job.
    LOCK_JOB = concat!("SELECT ", columns!(job ""), " FROM jobs WHERE tenant = $1 AND id = $2 AND deleted_at IS NULL FOR NO KEY UPDATE");
    /// 1 jobs.
    TASKS = concat!("SELECT ", columns!(task ""), " FROM tasks WHERE job = ANY ($1::text[]) ORDER BY job, ordinal");
    /// 1 jobs.
    OBJECTS = concat!("SELECT ", columns!(object ""), " FROM objects WHERE job = ANY ($1::text[]) ORDER BY job, position");
    /// 1 tenant, 2 before which id, 3 most.
    JOBS = concat!("SELECT ", columns!(job ""), " FROM jobs WHERE tenant = $1 AND id < $2 AND deleted_at IS NULL ORDER BY id DESC LIMIT $3");
    /// 1 tenant, 2 before which id, 3 most, 4 state.
    JOBS_IN_STATE = concat!("
        SELECT ", columns!(job ""), " FROM jobs WHERE tenant = $1 AND state = $4 AND id < $2 AND deleted_at IS NULL ORDER BY id DESC LIMIT $3");
    /// 1 job.
    RUNNING = "SELECT count(*) AS n FROM tasks WHERE job = $1 AND state = 'running'";
    /// 1 job, 2 state, 3 finished at, 4 event kind, 5 now. Under the job's lock.
    CANCEL = "
        WITH job AS (
            UPDATE jobs SET state = $2, finished_at = $3, version = version + 1 WHERE id = $1 RETURNING id, tenant, stage
        ), told AS (
            INSERT INTO journal (tenant, job, kind, state, stage, at) SELECT tenant, id, $4, $2, stage, $5 FROM job
        )
        UPDATE tasks t SET state = 'canceled' FROM job WHERE t.job = job.id AND t.state IN ('ready', 'waiting')";
    /// 1 tenant, 2 after, 3 most.
    EVENTS = concat!("SELECT ", columns!(event ""), " FROM events WHERE tenant = $1 AND seq > $2 AND job IS NOT NULL ORDER BY seq LIMIT $3");
    /// 1 tenant, 2 after, 3 most, 4 job.
    EVENTS_OF_JOB = concat!("SELECT ", columns!(event ""), " FROM events WHERE tenant = $1 AND job = $4 AND seq > $2 ORDER BY seq LIMIT $3");
    /// 1 tenant.
    LAST_EVENT = "SELECT seq FROM chains WHERE tenant = $1";
    /// Jobs by state.
    COUNT_JOBS = "SELECT state, count(*) AS n FROM jobs WHERE deleted_at IS NULL GROUP BY state";
    /// 1 most.
    READY = "SELECT id, tenant, pool, priority, not_before FROM tasks WHERE state = 'ready' ORDER BY not_before, id LIMIT $1";

    /// 1 pool, 2 tenant or null, 3 now, 4 most.
    READY_FOR = "
        SELECT id, tenant, pool, priority, not_before FROM tasks
        WHERE state = 'ready' AND pool = $1 AND ($2::text IS NULL OR tenant = $2) AND not_before <= $3
        ORDER BY not_before, id LIMIT $4";
    /// 1 most.
    RUNNING_TASKS = "
        SELECT t.id, t.tenant, t.pool FROM leases l JOIN tasks t ON t.id = l.task WHERE t.state = 'running' LIMIT $1";

    // --- uploads

    /// 1 tenant.
    UPLOADED = "
        SELECT count(*) FILTER (WHERE received < size) AS unfinished, coalesce(sum(size), 0)::bigint AS bytes
        FROM uploads WHERE tenant = $1";
    /// 1 id, 2 tenant, 3 size, 4 name, 5 now.
    ANNOUNCE = "
        INSERT INTO uploads (id, tenant, size, name, created_at, touched_at, metadata) VALUES ($1, $2, $3, $4, $5, $5, $6)";
    /// 1 tenant, 2 id.
    UPLOAD = concat!("SELECT ", columns!(upload ""), " FROM uploads WHERE tenant = $1 AND id = $2");
    /// 1 id, 2 from, 3 to, 4 now.
    ADVANCE = "UPDATE uploads SET received = $3, touched_at = $4 WHERE id = $1 AND received = $2";
    /// 1 tenant, 2 upload.
    UPLOAD_IN_USE = "
        SELECT 1 AS used FROM jobs
        WHERE upload = $2 AND tenant = $1 AND state IN ('queued', 'running', 'canceling') LIMIT 1";
    /// 1 tenant, 2 id.
    DELETE_UPLOAD = "DELETE FROM uploads WHERE tenant = $1 AND id = $2";
    /// 1 before.
    IDLE_UPLOADS = "SELECT tenant, id FROM uploads WHERE received < size AND touched_at < $1 LIMIT 1000";
    /// 1 id, 2 before.
    DELETE_IDLE = "
        WITH writer AS (DELETE FROM upload_writers WHERE upload = $1)
        DELETE FROM uploads WHERE id = $1 AND received < size AND touched_at < $2";

    // --- tenants and workers

    /// 1 id, 2 name, 3 now, 4 the hash that the chain begins with.
    ADD_TENANT = "
        WITH added AS (
            INSERT INTO tenants (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING RETURNING id
        )
        INSERT INTO chains (tenant, hash) SELECT id, $4 FROM added";
    /// 1 name.
    TENANT = "SELECT id FROM tenants WHERE name = $1";
    /// 1 name, 2 weight.
    SET_WEIGHT = "UPDATE tenants SET weight = $2 WHERE name = $1";
    /// Those that differ from the default.
    WEIGHTS = "SELECT id, weight FROM tenants WHERE weight <> 100";
    /// 1 id, 2 tenant, 3 label, 4 digest, 5 now, 6 scopes, 7 expires at.
    ADD_KEY = "
        INSERT INTO api_keys (id, tenant, label, secret_sha256, created_at, scopes, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    /// 1 id.
    KEY = "SELECT tenant, secret_sha256, scopes, expires_at FROM api_keys WHERE id = $1 AND revoked_at IS NULL";
    /// 1 tenant.
    KEYS = "
        SELECT id, label, scopes, created_at, expires_at, revoked_at FROM api_keys WHERE tenant = $1 ORDER BY created_at, id";
    /// 1 id, 2 at.
    EXPIRE_KEY = "
        UPDATE api_keys SET expires_at = least(coalesce(expires_at, $2), $2) WHERE id = $1 AND revoked_at IS NULL";
    /// 1 id, 2 now.
    REVOKE_KEY = "UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
    /// 1 digest, 2 pool, 3 now.
    ADD_JOIN_TOKEN = "INSERT INTO join_tokens (sha256, pool, created_at) VALUES ($1, $2, $3)";
    /// 1 digest.
    JOIN_TOKEN = "SELECT pool FROM join_tokens WHERE sha256 = $1 AND revoked_at IS NULL";
    /// 1 pool.
    HAS_JOIN_TOKEN = "SELECT 1 FROM join_tokens WHERE pool = $1 AND revoked_at IS NULL LIMIT 1";
    /// 1 pool, 2 now.
    REVOKE_JOIN_TOKENS = "UPDATE join_tokens SET revoked_at = $2 WHERE pool = $1 AND revoked_at IS NULL";
    /// 1 id, 2 pool, 3 now, 4 expires.
    ADD_WORKER = "INSERT INTO workers (id, pool, enrolled_at, cert_expires_at) VALUES ($1, $2, $3, $4)";
    /// 1 id.
    WORKER = "
        SELECT id, pool, tenant, pod, node, cordoned_at, revoked_at, retired_at FROM workers WHERE id = $1";
    /// 1 id, 2 expires.
    RENEW_WORKER = "UPDATE workers SET cert_expires_at = $2 WHERE id = $1";

    // --- pools of a cluster, pods, verdicts

    /// Pushes come one after another.
    LOCK_POOLS = "SELECT pg_advisory_xact_lock(7307201)";
    /// 1 name, 2 namespace, 3 account.
    RIVAL_POOLS = concat!("SELECT ", columns!(pool ""), " FROM pools WHERE name = $1 OR (namespace = $2 AND account = $3)");
    /// 1 id.
    TENANT_BY_ID = "SELECT id FROM tenants WHERE id = $1";
    /// 1 name, 2 namespace, 3 account, 4 uid, 5 generation, 6 tenant, 7 most workers, 8 closed, 9 policy, 10 storage.
    PUT_POOL = "
        INSERT INTO pools (name, namespace, account, uid, generation, tenant, max_workers, closed, policy, storage)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT (name) DO UPDATE SET account = excluded.account, uid = excluded.uid, generation = excluded.generation,
            tenant = excluded.tenant, max_workers = excluded.max_workers, closed = excluded.closed, policy = excluded.policy,
            storage = excluded.storage";
    /// 1 name, 2 uid.
    DELETE_POOL = "
        WITH gone AS (DELETE FROM pools WHERE name = $1 AND uid = $2 RETURNING name),
            unsaid AS (DELETE FROM verdicts v USING gone g WHERE v.pool = g.name)
        SELECT name FROM gone";
    /// All.
    POOLS = concat!("SELECT ", columns!(pool ""), " FROM pools ORDER BY name");
    /// 1 namespace, 2 account.
    POOL_OF = concat!("SELECT ", columns!(pool ""), " FROM pools WHERE namespace = $1 AND account = $2");
    /// 1 id, 2 name.
    RIVAL_TENANTS = "
        SELECT id, name, limits, pushed_uid, pushed_generation FROM tenants WHERE id = $1 OR name = $2 FOR UPDATE";
    /// 1 id, 2 weight, 3 limits, 4 uid, 5 generation.
    PUT_TENANT = "
        UPDATE tenants SET weight = $2, limits = $3, pushed_uid = $4, pushed_generation = $5 WHERE id = $1";
    /// 1 tenant.
    OWN_STORAGE = "SELECT storage FROM tenants WHERE id = $1";
    OWN_STORAGES = "
        SELECT id, name, storage FROM tenants WHERE storage IS NOT NULL AND erased_at IS NULL ORDER BY id";
    /// 1 tenant, 2 storage.
    SET_STORAGE = "UPDATE tenants SET storage = $2 WHERE id = $1";
    /// 1 pool.
    LOCK_ENROLMENT = "SELECT pg_advisory_xact_lock(7307202, hashtext($1))";
    /// 1 id.
    POD_WORKER = "SELECT pool, key_sha256, revoked_at FROM workers WHERE id = $1";
    /// 1 pool, 2 id, 3 now.
    OTHER_WORKERS = "
        SELECT count(*) AS n FROM workers
        WHERE pool = $1 AND id <> $2 AND cert_expires_at > $3 AND revoked_at IS NULL AND key_sha256 IS NOT NULL";
    /// 1 id, 2 pool, 3 tenant, 4 pod, 5 node, 6 key, 7 now, 8 expires.
    ADD_POD = "
        INSERT INTO workers (id, pool, tenant, pod, node, key_sha256, enrolled_at, cert_expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (id) DO UPDATE SET tenant = coalesce(workers.tenant, excluded.tenant), pod = excluded.pod,
            node = excluded.node, key_sha256 = excluded.key_sha256, cert_expires_at = excluded.cert_expires_at";
    /// 1 now.
    POOL_WORKERS = "
        SELECT w.id, w.pool, w.pod, w.node, w.cordoned_at IS NOT NULL AS cordoned, w.retired_at IS NOT NULL AS retired, w.live > 0 AS busy
        FROM workers w JOIN pools p ON p.name = w.pool
        WHERE w.cert_expires_at > $1 AND w.revoked_at IS NULL AND w.key_sha256 IS NOT NULL ORDER BY w.id";
    /// 1 pool, 2 workers, 3 now. A lease counts itself in the same row, so that either it or this is first.
    CORDON = "
        INSERT INTO workers (id, pool, enrolled_at, cert_expires_at, cordoned_at)
        SELECT id, $1::text, $3::bigint, 0, $3::bigint FROM unnest($2::text[]) AS asked (id) ORDER BY id
        ON CONFLICT (id) DO UPDATE SET cordoned_at = coalesce(workers.cordoned_at, excluded.cordoned_at)
            WHERE workers.pool = excluded.pool AND workers.live = 0
        RETURNING id";
    /// 1 pool.
    UNCORDON = "UPDATE workers SET cordoned_at = NULL WHERE pool = $1 AND cordoned_at IS NOT NULL";
    /// 1 id, 2 now.
    RETIRE_WORKER = "UPDATE workers SET retired_at = coalesce(retired_at, $2) WHERE id = $1";
    /// 1 id, 2 now.
    REVOKE_WORKER = "UPDATE workers SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1";
    /// 1 since.
    REVOKED = "SELECT id FROM workers WHERE revoked_at IS NOT NULL AND revoked_at >= $1";
    /// 1 pool, 2 policy, 3 node, 4 verified, 5 reason, 6 expires, 7 now. What has expired of the pool goes with it.
    PUT_VERDICT = "
        WITH old AS (
            DELETE FROM verdicts WHERE pool = $1 AND expires_at <= $7 AND NOT (policy = $2 AND node = $3)
        )
        INSERT INTO verdicts (pool, policy, node, verified, reason, expires_at)
        SELECT $1::text, $2::text, $3::text, $4::boolean, $5::text, $6::bigint
        WHERE EXISTS (SELECT 1 FROM pools WHERE name = $1)
        ON CONFLICT (pool, policy, node) DO UPDATE SET verified = excluded.verified, reason = excluded.reason,
            expires_at = excluded.expires_at";
    /// 1 now.
    VERDICTS = concat!("SELECT ", columns!(verdict ""), " FROM verdicts WHERE expires_at > $1 ORDER BY pool, node");

    // --- housekeeping

    /// 1 most, 2 tenants to leave out. What a succeeded attempt made is an input of later tasks until the job has ended.
    GARBAGE = "
        SELECT a.tenant, a.job, a.id FROM attempts a JOIN jobs j ON j.id = a.job
        WHERE a.state <> 'live' AND NOT a.swept AND NOT a.kept
            AND (a.state <> 'succeeded' OR j.state IN ('succeeded', 'failed', 'canceled'))
            AND NOT a.tenant = ANY ($2::text[])
        LIMIT $1";
    /// An attempt that ended while a part was being recorded could not see that part to delete it. A part's attempt has a lease
    /// before the part is there, so what has none has ended.
    ORPHANED_PARTS = "DELETE FROM parts p WHERE NOT EXISTS (SELECT 1 FROM leases l WHERE l.attempt = p.attempt)";
    /// 1 attempt, 2 whether.
    SWEPT = "UPDATE attempts SET swept = $2 WHERE id = $1 AND state <> 'live'";
    /// 1 attempt.
    KEEPS_FILES = "SELECT 1 AS kept FROM attempts WHERE id = $1 AND NOT swept";
    /// 1 before.
    FORGET = "DELETE FROM idempotency WHERE created_at < $1";
    /// 1 most.
    OUTBOX = "
        SELECT o.id, t.id AS task, t.tenant, t.pool, t.priority, t.not_before
        FROM outbox o LEFT JOIN tasks t ON t.id = o.task AND t.state = 'ready'
        ORDER BY o.id LIMIT $1";
    /// 1 ids.
    RELAYED = "DELETE FROM outbox WHERE id = ANY ($1::bigint[])";
    // --- many brokers

    /// 1 duty, 2 holder, 3 for how long in ms.
    LEAD = "
        INSERT INTO leaders AS l (duty, holder, epoch, until)
        VALUES ($1, $2, 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3)
        ON CONFLICT (duty) DO UPDATE
            SET holder = excluded.holder, until = excluded.until,
                epoch = l.epoch + CASE WHEN l.holder = excluded.holder THEN 0 ELSE 1 END
            WHERE l.holder = excluded.holder OR l.until <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint
        RETURNING epoch";
    /// 1 duty, 2 epoch.
    LEADS = "
        SELECT 1 AS leads FROM leaders
        WHERE duty = $1 AND epoch = $2 AND until > (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    /// 1 duty, 2 holder.
    RESIGN = "UPDATE leaders SET until = 0 WHERE duty = $1 AND holder = $2";
    /// 1 upload, 2 holder, 3 for how long in ms.
    WRITE_UPLOAD = "
        INSERT INTO upload_writers AS w (upload, holder, until)
        VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3)
        ON CONFLICT (upload) DO UPDATE
            SET holder = excluded.holder, until = excluded.until, asked = w.asked AND w.holder = excluded.holder
            WHERE w.holder = excluded.holder OR w.until <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    /// 1 upload, 2 holder.
    WROTE_UPLOAD = "DELETE FROM upload_writers WHERE upload = $1 AND holder = $2";
    /// 1 upload.
    ASK_FOR_UPLOAD = "UPDATE upload_writers SET asked = TRUE WHERE upload = $1";
    /// 1 upload, 2 holder.
    ASKED_FOR = "SELECT 1 AS asked FROM upload_writers WHERE upload = $1 AND holder = $2 AND asked";
    /// 1 attempts.
    ENDED = "
        SELECT a.attempt FROM unnest($1::text[]) AS a (attempt)
        WHERE NOT EXISTS (SELECT 1 FROM leases l WHERE l.attempt = a.attempt)";

    // --- chains

    /// 1 tenant.
    WAITS = "SELECT 1 AS waits FROM journal WHERE tenant = $1 LIMIT 1";
    /// 1 tenant.
    LOCK_HEAD = "
        SELECT tenant, seq, hash, chained_at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
        FROM chains WHERE tenant = $1 FOR NO KEY UPDATE";
    /// 1 events to look at. Whoever holds a head is about to do its work.
    LOCK_WAITING_HEADS = "
        SELECT tenant, seq, hash, chained_at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
        FROM chains
        WHERE tenant IN (SELECT w.tenant FROM (SELECT j.tenant FROM journal j ORDER BY j.id LIMIT $1) w)
        ORDER BY tenant FOR NO KEY UPDATE SKIP LOCKED";
    /// 1 tenants, 2 most.
    JOURNAL = concat!("SELECT ", columns!(journal ""), " FROM journal WHERE tenant = ANY ($1::text[]) ORDER BY id LIMIT $2");
    /// 1 ids.
    TAKEN = "DELETE FROM journal WHERE id = ANY ($1::bigint[])";
    /// The columns of `events`, one entry for each event.
    CHAIN = "
        INSERT INTO events (tenant, seq, chained_at, digest, hash, salt, job, kind, state, stage, failure, at)
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bytea[], $7::text[],
            $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[])";
    /// 1 tenants, 2 positions, 3 hashes, 4 times.
    ADVANCE_HEADS = "
        UPDATE chains c SET seq = n.seq, hash = n.hash, chained_at = n.chained_at
        FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bigint[]) AS n (tenant, seq, hash, chained_at)
        WHERE c.tenant = n.tenant";
    /// 1 tenant, 2 through, 3 the kind of records that stay.
    ERASE = "
        UPDATE events SET salt = NULL, job = NULL, kind = NULL, state = NULL, stage = NULL, failure = NULL, at = NULL
        WHERE tenant = $1 AND seq <= $2 AND salt IS NOT NULL AND kind <> $3";
    /// 1 tenant, 2 jobs.
    ERASE_JOBS = "
        UPDATE events SET salt = NULL, job = NULL, kind = NULL, state = NULL, stage = NULL, failure = NULL, at = NULL
        WHERE tenant = $1 AND job = ANY ($2::text[]) RETURNING seq";
    /// 1 tenant, 2 after, 3 most.
    ENTRIES = concat!("SELECT ", columns!(entry ""), " FROM events WHERE tenant = $1 AND seq > $2 ORDER BY seq LIMIT $3");
    /// All of them.
    HEADS = "SELECT tenant, seq, hash FROM chains WHERE seq > 0 ORDER BY tenant";

    /// Partitions of `events`; their names sort as their months do.
    PARTITIONS = "
        SELECT c.relname::text AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'events'::regclass ORDER BY c.relname";
    /// 1 tenants, 2 positions, 3 hashes, 4 partition, 5 now.
    KEEP_ANCHORS = "
        INSERT INTO anchors (tenant, seq, hash, partition, dropped_at)
        SELECT a.tenant, a.seq, a.hash, $4::text, $5::bigint
        FROM unnest($1::text[], $2::bigint[], $3::bytea[]) AS a (tenant, seq, hash)";

    // --- operations

    /// 1 broker, 2 pools, 3 workers, 4 idle, 5 now. Rows of pools that it has no more, and of brokers that are long gone, go.
    TELL_POOLS = "
        WITH gone AS (
            DELETE FROM pools_seen WHERE (broker = $1 AND pool <> ALL ($2::text[])) OR at < $5::bigint - 86400000
        )
        INSERT INTO pools_seen (broker, pool, workers, idle, at)
        SELECT $1::text, s.pool, s.workers, s.idle, $5::bigint
        FROM unnest($2::text[], $3::bigint[], $4::bigint[]) AS s (pool, workers, idle)
        ON CONFLICT (broker, pool) DO UPDATE SET workers = excluded.workers, idle = excluded.idle, at = excluded.at";
    /// 1 broker, 2 since.
    POOLS_OF_OTHERS = "
        SELECT pool, sum(workers)::bigint AS workers, sum(idle)::bigint AS idle FROM pools_seen
        WHERE broker <> $1 AND at >= $2 GROUP BY pool";
    /// 1 attempt, 2 worker, 3 epoch, 4 lines, 5 most characters, 6 now.
    APPEND_LOG = "
        INSERT INTO attempt_logs (attempt, job, text, cut, at)
        SELECT l.attempt, l.job, left($4, $5), length($4) > $5, $6
        FROM leases l WHERE l.attempt = $1 AND l.worker = $2 AND l.epoch = $3
        ON CONFLICT (attempt) DO UPDATE
        SET text = left(attempt_logs.text || $4, $5), cut = length(attempt_logs.text || $4) > $5, at = $6
        WHERE NOT attempt_logs.cut";
    /// 1 tenant, 2 job, 3 most.
    LOGS = "
        SELECT l.attempt, l.text, l.cut, t.kind, a.epoch, a.state, a.started_at
        FROM attempt_logs l JOIN attempts a ON a.id = l.attempt JOIN tasks t ON t.id = a.task
        WHERE l.job = $2 AND a.tenant = $1 ORDER BY l.attempt DESC LIMIT $3";
    /// 1 before.
    FORGET_LOGS = "DELETE FROM attempt_logs WHERE at < $1";

    BANS = concat!("SELECT ", columns!(ban ""), " FROM decoder_bans ORDER BY name");
    /// 1 name, 2 reason, 3 when.
    BAN = "
        INSERT INTO decoder_bans (name, reason, at) VALUES ($1, $2, $3)
        ON CONFLICT (name) DO UPDATE SET reason = excluded.reason";
    /// 1 name.
    LIFT_BAN = "DELETE FROM decoder_bans WHERE name = $1";
    /// 1 after, 2 how many.
    ENDED_JOBS = "
        SELECT j.id, j.state, j.finished_at, j.media, t.name FROM jobs j JOIN tenants t ON t.id = j.tenant
        WHERE j.id > $1 AND j.state IN ('succeeded', 'failed', 'canceled') ORDER BY j.id LIMIT $2";

    /// 1 tenant.
    TENANT_LIMITS = "SELECT limits FROM tenants WHERE id = $1";
    /// 1 tenant, 2 limits.
    SET_TENANT_LIMITS = "UPDATE tenants SET limits = $2 WHERE id = $1";
    /// 1 tenant.
    RUNNING_OF_TENANT = "SELECT count(*) AS n FROM attempts WHERE tenant = $1 AND state = 'live'";

    // --- deletion

    /// 1 tenant, 2 job, 3 now.
    DELETE_JOB = "
        WITH job AS (
            UPDATE jobs SET deleted_at = $3, version = version + 1
            WHERE tenant = $1 AND id = $2 AND deleted_at IS NULL AND state IN ('succeeded', 'failed', 'canceled')
            RETURNING id
        ), kept AS (
            UPDATE attempts a SET kept = FALSE FROM job JOIN tasks t ON t.job = job.id WHERE a.task = t.id AND a.kept
        ), logs AS (
            DELETE FROM attempt_logs l USING job WHERE l.job = job.id
        ), manifest AS (
            DELETE FROM objects o USING job WHERE o.job = job.id
        )
        SELECT (SELECT count(*) FROM job) AS deleted,
            (SELECT count(*) FROM jobs WHERE tenant = $1 AND id = $2 AND deleted_at IS NULL) AS found";
    /// 1 most.
    PURGEABLE_JOBS = "
        SELECT j.tenant, j.id FROM jobs j WHERE j.deleted_at IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM tasks t JOIN attempts a ON a.task = t.id WHERE t.job = j.id AND NOT a.swept)
        ORDER BY j.tenant LIMIT $1";
    /// 1 tenant, 2 jobs. What refers to a row goes in the same statement, at whose end references are looked at.
    PURGE_JOBS = "
        WITH gone AS (
            DELETE FROM jobs WHERE tenant = $1 AND id = ANY ($2::text[]) AND deleted_at IS NOT NULL RETURNING id, state
        ), gone_tasks AS (
            DELETE FROM tasks t USING gone WHERE t.job = gone.id RETURNING t.id
        ), gone_attempts AS (
            DELETE FROM attempts a USING gone_tasks t WHERE a.task = t.id RETURNING a.id
        ), gone_parts AS (
            DELETE FROM parts p USING gone_attempts a WHERE p.attempt = a.id
        ), gone_logs AS (
            DELETE FROM attempt_logs l USING gone WHERE l.job = gone.id
        ), gone_messages AS (
            DELETE FROM deliveries d USING gone, webhooks w WHERE w.tenant = $1 AND d.webhook = w.id AND d.job = gone.id
        ), gone_minutes AS (
            DELETE FROM minutes m USING gone WHERE m.job = gone.id AND gone.state <> 'succeeded'
        )
        SELECT count(*) AS n FROM gone";
    /// 1 tenant, 2 the first id that is too young, 3 ended before, 4 most.
    OLD_JOBS = "
        SELECT id FROM jobs WHERE tenant = $1 AND id < $2 AND finished_at < $3 AND deleted_at IS NULL
            AND state IN ('succeeded', 'failed', 'canceled')
        ORDER BY id LIMIT $4";
    /// 1 tenant, 2 touched before, 3 most.
    OLD_UPLOADS = "
        SELECT u.id FROM uploads u WHERE u.tenant = $1 AND u.touched_at < $2 AND NOT EXISTS (
            SELECT 1 FROM jobs j WHERE j.upload = u.id AND j.state IN ('queued', 'running', 'canceling')
        ) ORDER BY u.id LIMIT $3";
    /// Those that have data.
    TENANTS = "SELECT id, limits, deleted_at FROM tenants WHERE erased_at IS NULL ORDER BY id";
    /// 1 name, 2 now.
    DELETE_TENANT = "
        WITH tenant AS (
            UPDATE tenants SET name = 'deleted ' || id, limits = NULL, deleted_at = $2
            WHERE name = $1 AND deleted_at IS NULL RETURNING id
        ), keys AS (
            UPDATE api_keys k SET revoked_at = coalesce(k.revoked_at, $2), label = '' FROM tenant WHERE k.tenant = tenant.id
        ), hooks AS (
            DELETE FROM webhooks w USING tenant WHERE w.tenant = tenant.id RETURNING w.id
        ), messages AS (
            DELETE FROM deliveries d USING hooks WHERE d.webhook = hooks.id
        ), rules AS (
            DELETE FROM intake_rules r USING tenant WHERE r.tenant = tenant.id RETURNING r.id
        ), arrivals AS (
            DELETE FROM intake_objects o USING rules WHERE o.rule = rules.id
        ), answers AS (
            DELETE FROM idempotency i USING tenant WHERE i.tenant = tenant.id
        )
        SELECT id FROM tenant";
    /// 1 tenant.
    TENANT_HAS_DATA = "
        SELECT 1 AS has WHERE EXISTS (SELECT 1 FROM jobs WHERE tenant = $1) OR EXISTS (SELECT 1 FROM uploads WHERE tenant = $1)";
    /// 1 tenant, 2 now.
    FINISH_TENANT = "
        WITH taken AS (
            DELETE FROM minutes WHERE tenant = $1
        ), answers AS (
            DELETE FROM idempotency WHERE tenant = $1
        ), quarantined AS (
            DELETE FROM quarantined_inputs WHERE tenant = $1
        )
        UPDATE tenants SET erased_at = $2, storage = NULL WHERE id = $1 AND deleted_at IS NOT NULL AND erased_at IS NULL";

    // --- spend

    /// 1 tenant, 2 upload.
    MEDIA_OF_UPLOAD = "
        SELECT media FROM jobs WHERE tenant = $1 AND upload = $2 AND media IS NOT NULL AND deleted_at IS NULL ORDER BY id DESC LIMIT 1";
    /// 1 tenant, 2 day, 3 a job that is left out.
    MINUTES_TAKEN = "
        SELECT coalesce(sum(m.input_ms), 0)::bigint AS ms FROM minutes m
        WHERE m.tenant = $1 AND m.day = $2 AND m.job <> $3
            AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = m.job AND j.state IN ('failed', 'canceled'))";
    /// 1 job, 2 tenant, 3 day, 4 milliseconds. Under the tenant's lock.
    TAKE_MINUTES = "
        INSERT INTO minutes (job, tenant, day, input_ms) VALUES ($1, $2, $3, $4) ON CONFLICT (job) DO NOTHING";
    /// 1 job.
    HAS_MINUTES = "SELECT 1 AS taken FROM minutes WHERE job = $1";

    // --- webhooks

    /// 1 id, 2 tenant, 3 URL, 4 types, 5 description, 6 cursor, 7 salts, 8 now, 9 most. Under the tenant's lock.
    ADD_WEBHOOK = "
        INSERT INTO webhooks (id, tenant, url, types, description, cursor, secrets, created_at)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8
        WHERE (SELECT count(*) FROM webhooks WHERE tenant = $2 AND managed IS NULL) < $9";
    /// 1 tenant.
    MANAGED_WEBHOOKS = concat!("SELECT ", columns!(webhook ""), " FROM webhooks WHERE tenant = $1 AND managed IS NOT NULL ORDER BY id");
    /// 1 id, 2 tenant, 3 URL, 4 types, 5 name, 6 salts, 7 now.
    ADD_MANAGED_WEBHOOK = "
        INSERT INTO webhooks (id, tenant, url, types, managed, cursor, secrets, created_at)
        VALUES ($1, $2, $3, $4, $5, coalesce((SELECT seq FROM chains WHERE tenant = $2), 0), $6, $7)";
    /// 1 id, 2 URL, 3 types. Another address is a new beginning: why the old one was disabled says nothing of it.
    UPDATE_MANAGED_WEBHOOK = "
        UPDATE webhooks w SET url = $2, types = $3,
            cursor = CASE WHEN disabled IS NULL OR url = $2 THEN cursor
                ELSE greatest(cursor, (SELECT seq FROM chains c WHERE c.tenant = w.tenant)) END,
            disabled = CASE WHEN url = $2 THEN disabled END
        WHERE id = $1";
    /// 1 tenant.
    WEBHOOKS = concat!("SELECT ", columns!(webhook ""), " FROM webhooks WHERE tenant = $1 ORDER BY id");
    /// 1 tenant, 2 id.
    WEBHOOK = concat!("SELECT ", columns!(webhook ""), " FROM webhooks WHERE tenant = $1 AND id = $2");
    /// 1 ids.
    WEBHOOKS_BY_ID = concat!("SELECT ", columns!(webhook ""), " FROM webhooks WHERE id = ANY ($1::text[])");
    /// 1 tenant, 2 id.
    LOCK_WEBHOOK = "SELECT id FROM webhooks WHERE tenant = $1 AND id = $2 FOR UPDATE";
    /// 1 tenant, 2 id, 3 old, 4 new.
    SET_SALTS = "UPDATE webhooks SET secrets = $4 WHERE tenant = $1 AND id = $2 AND secrets = $3";
    /// 1 tenant, 2 id, 3 cursor.
    ENABLE_WEBHOOK = "
        UPDATE webhooks SET cursor = CASE WHEN disabled IS NULL THEN cursor ELSE greatest(cursor, $3) END, disabled = NULL
        WHERE tenant = $1 AND id = $2";
    /// 1 webhook.
    DELETE_DELIVERIES = "DELETE FROM deliveries WHERE webhook = $1";
    /// 1 webhook.
    DELETE_WEBHOOK = "DELETE FROM webhooks WHERE id = $1";
    /// 1 most pending, 2 most.
    WEBHOOKS_BEHIND = concat!("SELECT ", columns!(webhook "w."), " FROM webhooks w JOIN chains c ON c.tenant = w.tenant
        WHERE w.disabled IS NULL AND w.cursor < c.seq
            AND (SELECT count(*) FROM deliveries d WHERE d.webhook = w.id AND d.state = 'pending') < $1
        ORDER BY w.id LIMIT $2");
    /// 1 webhook, 2 from, 3 to, 4 ids, 5 types, 6 jobs, 7 bodies, 8 now.
    FAN_OUT = "
        WITH moved AS (
            UPDATE webhooks SET cursor = $3 WHERE id = $1 AND cursor = $2 AND disabled IS NULL RETURNING id
        ), added AS (
            INSERT INTO deliveries (id, webhook, type, job, body, state, next_at, created_at)
            SELECT d.id, moved.id, d.type, d.job, d.body, 'pending', $8::bigint, $8::bigint
            FROM moved, unnest($4::text[], $5::text[], $6::text[], $7::text[]) AS d (id, type, job, body)
        )
        SELECT count(*) AS moved FROM moved";
    /// 1 now, 2 until, 3 most, 4 most of each, 5 webhooks that are busy. What another sender claims at the same moment is skipped,
    /// and what it has claimed is not due any more when the row is looked at again.
    CLAIM_DELIVERIES = concat!("
        WITH due AS (
            SELECT id FROM (
                SELECT d.id, d.next_at, row_number() OVER (PARTITION BY d.webhook ORDER BY d.next_at, d.id) AS place
                FROM deliveries d JOIN webhooks w ON w.id = d.webhook AND w.disabled IS NULL
                WHERE d.state = 'pending' AND d.next_at <= $1 AND d.webhook <> ALL ($5::text[])
            ) ranked WHERE place <= $4 ORDER BY next_at, id LIMIT $3
        ), locked AS (
            SELECT d.id FROM deliveries d JOIN due USING (id)
            WHERE d.state = 'pending' AND d.next_at <= $1 ORDER BY d.id FOR NO KEY UPDATE OF d SKIP LOCKED
        )
        UPDATE deliveries d SET attempts = d.attempts + 1, next_at = $2 FROM locked WHERE d.id = locked.id RETURNING ", columns!(delivery "d."));
    /// 1 id, 2 attempt, 3 state, 4 next at, 5 status, 6 error, 7 ended at, 8 succeeded at, 9 why the webhook is to be disabled. One
    /// that took a later message is not failing. The webhook is locked before its message, as whoever deletes it does.
    END_ATTEMPT = "
        WITH locked AS (
            SELECT id FROM webhooks WHERE id = (SELECT webhook FROM deliveries WHERE id = $1)
                AND ($8::bigint IS NOT NULL OR $9::text IS NOT NULL) FOR NO KEY UPDATE
        ), ended AS (
            UPDATE deliveries SET state = $3, next_at = $4, last_status = $5, last_error = $6, ended_at = $7
            WHERE id = $1 AND attempts = $2 AND state = 'pending' AND (SELECT count(*) FROM locked) >= 0
            RETURNING webhook, created_at
        ), hook AS (
            UPDATE webhooks w SET succeeded_at = coalesce($8::bigint, w.succeeded_at),
                disabled = CASE
                    WHEN $9::text = 'gone' OR w.succeeded_at IS NULL OR w.succeeded_at < e.created_at THEN coalesce(w.disabled, $9::text)
                    ELSE w.disabled END
            FROM ended e WHERE w.id = e.webhook AND ($8::bigint IS NOT NULL OR $9::text IS NOT NULL)
        )
        SELECT count(*) AS ended FROM ended";
    /// 1 tenant, 2 webhook, 3 before which id, 4 most.
    DELIVERIES = concat!("SELECT ", columns!(delivery "d."), " FROM deliveries d JOIN webhooks w ON w.id = d.webhook AND w.tenant = $1
        WHERE d.webhook = $2 AND d.id < $3 ORDER BY d.id DESC LIMIT $4");
    /// 1 tenant, 2 webhook, 3 id, 4 now. The number of attempts begins anew only where none is under way: its end would count for
    /// the new one.
    REDELIVER = concat!("
        UPDATE deliveries d SET attempts = CASE WHEN d.state = 'pending' THEN d.attempts ELSE 0 END, state = 'pending',
            next_at = CASE WHEN d.state = 'pending' THEN least(d.next_at, $4) ELSE $4 END, ended_at = NULL
        FROM webhooks w WHERE w.id = d.webhook AND w.tenant = $1 AND w.id = $2 AND d.id = $3 RETURNING ", columns!(delivery "d."));
    /// 1 before.
    FORGET_DELIVERIES = "DELETE FROM deliveries WHERE state <> 'pending' AND ended_at < $1";

    // --- the intake

    /// 1 tenant, 2 rule, 3 bucket, 4 object, 5 version, 6 modified, 7 sequencer.
    IS_NEW = "
        SELECT EXISTS (
            SELECT 1 FROM intake_objects o WHERE o.rule = r.id AND o.bucket = $3 AND o.object = $4
                AND (o.version = $5 OR o.modified > $6 OR (o.modified = $6 AND o.sequencer > $7))
        ) AS known
        FROM intake_rules r WHERE r.tenant = $1 AND r.id = $2";
    /// 1 rule, 2 bucket, 3 object, 4 version, 5 modified, 6 sequencer, 7 job, 8 now.
    KEEP_ARRIVAL = "
        INSERT INTO intake_objects (rule, bucket, object, version, modified, sequencer, job, noted_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    /// 1 rule, 2 what, 3 key, 4 now.
    NOTE_TROUBLE = "UPDATE intake_rules SET problem = $2, problem_key = $3, problem_at = $4 WHERE id = $1";
    /// 1 id, 2 tenant, 3 prefix, 4 suffix, 5 job, 6 poll seconds, 7 existing, 8 now, 9 next look, 10 most.
    ADD_RULE = "
        INSERT INTO intake_rules (id, tenant, prefix, suffix, job, poll_seconds, existing, created_at, next_look_at)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
        WHERE (SELECT count(*) FROM intake_rules WHERE tenant = $2 AND managed IS NULL) < $10";
    /// 1 tenant.
    MANAGED_RULES = concat!("SELECT ", columns!(rule ""), " FROM intake_rules WHERE tenant = $1 AND managed IS NOT NULL ORDER BY id");
    /// 1 id, 2 prefix, 3 suffix, 4 job, 5 poll seconds, 6 existing, 7 now, 8 tenant, 9 name.
    ADD_MANAGED_RULE = "
        INSERT INTO intake_rules (id, tenant, prefix, suffix, job, poll_seconds, existing, created_at, next_look_at, managed)
        VALUES ($1, $8, $2, $3, $4, $5, $6, $7, CASE WHEN $5::bigint IS NOT NULL THEN $7::bigint END, $9)";
    /// 1 id, 2 prefix, 3 suffix, 4 job, 5 poll seconds, 6 existing, 7 now. Where other objects are taken than before, those that were
    /// written before this are as they are to a new rule.
    UPDATE_MANAGED_RULE = "
        UPDATE intake_rules SET created_at = CASE WHEN prefix = $2 AND suffix = $3 AND existing = $6 THEN created_at ELSE $7 END,
            prefix = $2, suffix = $3, job = $4, poll_seconds = $5, existing = $6, cursor = '',
            next_look_at = CASE WHEN $5::bigint IS NOT NULL THEN $7::bigint END,
            problem = NULL, problem_key = NULL, problem_at = NULL
        WHERE id = $1";
    /// 1 tenant.
    RULES = concat!("SELECT ", columns!(rule ""), " FROM intake_rules WHERE tenant = $1 ORDER BY id");
    /// 1 id.
    TENANT_OF_RULE = "SELECT tenant FROM intake_rules WHERE id = $1";
    /// 1 tenant, 2 id.
    DELETE_RULE = "DELETE FROM intake_rules WHERE tenant = $1 AND id = $2";
    /// 1 rule.
    DELETE_ARRIVALS = "DELETE FROM intake_objects WHERE rule = $1";
    /// 1 rule.
    DELETE_REFUSED = "DELETE FROM intake_objects WHERE rule = $1 AND job IS NULL";
    /// 1 tenant, 2 id, 3 now.
    LOOK_AGAIN = "
        UPDATE intake_rules SET cursor = '', next_look_at = $3, problem = NULL, problem_key = NULL, problem_at = NULL
        WHERE tenant = $1 AND id = $2";
    /// 1 rule, 2 bucket, 3 object, 4 sequencer.
    HEARD = "
        SELECT 1 AS heard FROM intake_objects WHERE rule = $1 AND bucket = $2 AND object = $3 AND sequencer = $4 LIMIT 1";
    /// 1 rule, 2 bucket, 3 objects.
    KNOWN_OBJECTS = "
        SELECT object, version FROM intake_objects WHERE rule = $1 AND bucket = $2 AND object = ANY ($3::text[])";
    /// 1 now, 2 most.
    RULES_TO_LOOK = concat!("SELECT ", columns!(rule ""), " FROM intake_rules WHERE next_look_at <= $1 ORDER BY next_look_at, id LIMIT $2");
    /// 1 rule, 2 from, 3 to, 4 next look, 5 what went wrong, 6 now.
    LOOKED = "
        UPDATE intake_rules SET cursor = $3, next_look_at = $4,
            looked_at = CASE WHEN $3 = '' AND $5::text IS NULL THEN $6 ELSE looked_at END,
            problem_key = CASE WHEN $5::text IS NULL THEN problem_key END,
            problem_at = CASE WHEN $5::text IS NULL THEN problem_at ELSE $6 END, problem = coalesce($5::text, problem)
        WHERE id = $1 AND cursor = $2";
    /// 1 noted before, 2 modified before.
    FORGET_ARRIVALS = "DELETE FROM intake_objects WHERE noted_at < $1 AND modified < $2";

    /// The time.
    TIME = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now";
}
