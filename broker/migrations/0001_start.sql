-- Ids are text as the API spells them; times are milliseconds since 1970, UTC; documents are JSON.

CREATE TABLE tenants (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    event_seq  INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id            TEXT PRIMARY KEY,
    tenant        TEXT NOT NULL REFERENCES tenants (id),
    label         TEXT NOT NULL,
    secret_sha256 BLOB NOT NULL,
    created_at    INTEGER NOT NULL,
    revoked_at    INTEGER
) STRICT;

CREATE TABLE join_tokens (
    sha256     BLOB PRIMARY KEY,
    pool       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE TABLE workers (
    id              TEXT PRIMARY KEY,
    pool            TEXT NOT NULL,
    tenant          TEXT REFERENCES tenants (id),
    enrolled_at     INTEGER NOT NULL,
    cert_expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE uploads (
    id          TEXT PRIMARY KEY,
    tenant      TEXT NOT NULL REFERENCES tenants (id),
    size        INTEGER NOT NULL,
    received    INTEGER NOT NULL DEFAULT 0 CHECK (received BETWEEN 0 AND size),
    name        TEXT,
    quarantined INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    touched_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX uploads_of_tenant ON uploads (tenant);

CREATE TABLE jobs (
    id          TEXT PRIMARY KEY,
    tenant      TEXT NOT NULL REFERENCES tenants (id),
    -- No reference: an upload may be deleted when its jobs have ended.
    upload      TEXT NOT NULL,
    input_size  INTEGER NOT NULL,
    spec        TEXT NOT NULL,
    pool        TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('queued', 'running', 'canceling', 'succeeded', 'failed', 'canceled')),
    media       TEXT,
    failure     TEXT,
    created_at  INTEGER NOT NULL,
    finished_at INTEGER
) STRICT;
CREATE INDEX jobs_of_tenant ON jobs (tenant, id);
CREATE INDEX jobs_unfinished ON jobs (tenant, state) WHERE state IN ('queued', 'running', 'canceling');

CREATE TABLE tasks (
    id           TEXT PRIMARY KEY,
    job          TEXT NOT NULL REFERENCES jobs (id),
    tenant       TEXT NOT NULL REFERENCES tenants (id),
    pool         TEXT NOT NULL,
    kind         TEXT NOT NULL,
    ordinal      INTEGER NOT NULL,
    plan         TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('waiting', 'ready', 'running', 'succeeded', 'failed', 'canceled')),
    epoch        INTEGER NOT NULL DEFAULT 0,
    tries        TEXT NOT NULL,
    memory_class INTEGER NOT NULL DEFAULT 0,
    not_before   INTEGER NOT NULL,
    done_by      TEXT,
    result       TEXT,
    digests      TEXT NOT NULL DEFAULT '[]',
    evidence     TEXT,
    last_failure TEXT,
    UNIQUE (job, kind)
) STRICT;
CREATE INDEX tasks_ready ON tasks (not_before) WHERE state = 'ready';

CREATE TABLE attempts (
    id            TEXT PRIMARY KEY,
    task          TEXT NOT NULL REFERENCES tasks (id),
    job           TEXT NOT NULL REFERENCES jobs (id),
    tenant        TEXT NOT NULL REFERENCES tenants (id),
    worker        TEXT NOT NULL REFERENCES workers (id),
    epoch         INTEGER NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('live', 'succeeded', 'failed', 'lost', 'released', 'canceled')),
    started_at    INTEGER NOT NULL,
    ended_at      INTEGER,
    hard_deadline INTEGER NOT NULL,
    failure       TEXT,
    evidence      TEXT,
    swept         INTEGER NOT NULL DEFAULT 0,
    UNIQUE (task, epoch)
) STRICT;
-- At most one attempt at a task is live, whatever the code above does.
CREATE UNIQUE INDEX attempts_live ON attempts (task) WHERE state = 'live';
CREATE INDEX attempts_of_worker ON attempts (worker) WHERE state = 'live';
CREATE INDEX attempts_unswept ON attempts (state) WHERE swept = 0;

-- Narrow: renewed every few seconds for each running task.
CREATE TABLE leases (
    attempt  TEXT PRIMARY KEY REFERENCES attempts (id),
    deadline INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE parts (
    attempt TEXT NOT NULL REFERENCES attempts (id),
    output  INTEGER NOT NULL,
    part    INTEGER NOT NULL,
    size    INTEGER NOT NULL,
    sha256  BLOB NOT NULL,
    PRIMARY KEY (attempt, output, part)
) STRICT, WITHOUT ROWID;

-- Append only.
CREATE TABLE events (
    tenant  TEXT NOT NULL REFERENCES tenants (id),
    seq     INTEGER NOT NULL,
    job     TEXT NOT NULL REFERENCES jobs (id),
    kind    TEXT NOT NULL,
    state   TEXT NOT NULL,
    stage   TEXT NOT NULL,
    failure TEXT,
    at      INTEGER NOT NULL,
    PRIMARY KEY (tenant, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_of_job ON events (job, seq);
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
BEGIN SELECT RAISE (ABORT, 'events are append-only'); END;
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
BEGIN SELECT RAISE (ABORT, 'events are append-only'); END;

CREATE TABLE objects (
    job          TEXT NOT NULL REFERENCES jobs (id),
    name         TEXT NOT NULL,
    position     INTEGER NOT NULL,
    attempt      TEXT NOT NULL REFERENCES attempts (id),
    output       INTEGER NOT NULL,
    size         INTEGER NOT NULL,
    parts        INTEGER NOT NULL,
    digest       TEXT NOT NULL,
    content_type TEXT NOT NULL,
    PRIMARY KEY (job, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX objects_of_attempt ON objects (attempt);

CREATE TABLE idempotency (
    tenant     TEXT NOT NULL REFERENCES tenants (id),
    key        TEXT NOT NULL,
    request    BLOB NOT NULL,
    answer     BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_at);
