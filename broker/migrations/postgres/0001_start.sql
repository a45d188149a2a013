-- Ids are text as the API spells them, compared byte by byte; times are milliseconds since 1970, UTC; documents are JSON as
-- text: nothing in the database looks into them. References stand only where they cost no lock on a row that many write to.

CREATE TABLE tenants (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id            TEXT COLLATE "C" PRIMARY KEY,
    tenant        TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    label         TEXT NOT NULL,
    secret_sha256 BYTEA NOT NULL,
    created_at    BIGINT NOT NULL,
    revoked_at    BIGINT
);

CREATE TABLE join_tokens (
    sha256     BYTEA PRIMARY KEY,
    pool       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);

CREATE TABLE workers (
    id              TEXT COLLATE "C" PRIMARY KEY,
    pool            TEXT NOT NULL,
    tenant          TEXT COLLATE "C",
    -- Live attempts: counted where the lease locks the row, so that two leases at once cannot both be the last one allowed.
    live            BIGINT NOT NULL DEFAULT 0 CHECK (live >= 0),
    enrolled_at     BIGINT NOT NULL,
    cert_expires_at BIGINT NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE uploads (
    id          TEXT COLLATE "C" PRIMARY KEY,
    tenant      TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    size        BIGINT NOT NULL,
    received    BIGINT NOT NULL DEFAULT 0 CHECK (received BETWEEN 0 AND size),
    name        TEXT,
    quarantined BOOLEAN NOT NULL DEFAULT FALSE,
    created_at  BIGINT NOT NULL,
    touched_at  BIGINT NOT NULL
);
CREATE INDEX uploads_of_tenant ON uploads (tenant);
CREATE INDEX uploads_unfinished ON uploads (touched_at) WHERE received < size;

CREATE TABLE jobs (
    id          TEXT COLLATE "C" PRIMARY KEY,
    tenant      TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    -- No reference: an upload may be deleted when its jobs have ended.
    upload      TEXT COLLATE "C" NOT NULL,
    input_size  BIGINT NOT NULL,
    spec        TEXT NOT NULL,
    pool        TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('queued', 'running', 'canceling', 'succeeded', 'failed', 'canceled')),
    -- One higher with every move of the job or of one of its tasks: what a move compares and sets.
    version     BIGINT NOT NULL DEFAULT 0,
    stage       TEXT NOT NULL,
    media       TEXT,
    failure     TEXT,
    created_at  BIGINT NOT NULL,
    finished_at BIGINT
) WITH (fillfactor = 70);
CREATE INDEX jobs_of_tenant ON jobs (tenant, id);
CREATE INDEX jobs_of_tenant_by_state ON jobs (tenant, state, id);
CREATE INDEX jobs_unfinished_of_upload ON jobs (upload) WHERE state IN ('queued', 'running', 'canceling');

CREATE TABLE tasks (
    id           TEXT COLLATE "C" PRIMARY KEY,
    job          TEXT COLLATE "C" NOT NULL REFERENCES jobs (id),
    tenant       TEXT COLLATE "C" NOT NULL,
    pool         TEXT NOT NULL,
    kind         TEXT NOT NULL,
    ordinal      BIGINT NOT NULL,
    plan         TEXT NOT NULL,
    wall_ms      BIGINT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('waiting', 'ready', 'running', 'succeeded', 'failed', 'canceled')),
    epoch        BIGINT NOT NULL DEFAULT 0,
    tries        TEXT NOT NULL,
    memory_class BIGINT NOT NULL DEFAULT 0,
    not_before   BIGINT NOT NULL,
    done_by      TEXT COLLATE "C",
    result       TEXT,
    digests      TEXT NOT NULL DEFAULT '[]',
    evidence     TEXT,
    last_failure TEXT,
    UNIQUE (job, kind)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX tasks_ready ON tasks (not_before, id) WHERE state = 'ready';

CREATE TABLE attempts (
    id            TEXT COLLATE "C" PRIMARY KEY,
    task          TEXT COLLATE "C" NOT NULL REFERENCES tasks (id),
    job           TEXT COLLATE "C" NOT NULL,
    tenant        TEXT COLLATE "C" NOT NULL,
    worker        TEXT COLLATE "C" NOT NULL,
    epoch         BIGINT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('live', 'succeeded', 'failed', 'lost', 'released', 'canceled')),
    started_at    BIGINT NOT NULL,
    ended_at      BIGINT,
    failure       TEXT,
    evidence      TEXT,
    -- Its files are in the manifest of its job.
    kept          BOOLEAN NOT NULL DEFAULT FALSE,
    swept         BOOLEAN NOT NULL DEFAULT FALSE,
    UNIQUE (task, epoch)
) WITH (fillfactor = 70);
-- At most one attempt at a task is live, whatever the code above does.
CREATE UNIQUE INDEX attempts_live ON attempts (task) WHERE state = 'live';
CREATE INDEX attempts_unswept ON attempts (job) WHERE state <> 'live' AND NOT swept AND NOT kept;

-- Narrow, and there only while the attempt is live: renewed every few seconds for each running task. The deadline has no
-- index, so that a renewal changes no index; what has run out is found by reading the table, which is small. Whoever deletes
-- the row ends the attempt: that is the fence.
CREATE TABLE leases (
    attempt       TEXT COLLATE "C" PRIMARY KEY,
    task          TEXT COLLATE "C" NOT NULL,
    job           TEXT COLLATE "C" NOT NULL,
    worker        TEXT COLLATE "C" NOT NULL,
    epoch         BIGINT NOT NULL,
    deadline      BIGINT NOT NULL,
    hard_deadline BIGINT NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE parts (
    attempt TEXT COLLATE "C" NOT NULL,
    output  BIGINT NOT NULL,
    part    BIGINT NOT NULL,
    size    BIGINT NOT NULL,
    sha256  BYTEA NOT NULL,
    PRIMARY KEY (attempt, output, part)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE objects (
    job          TEXT COLLATE "C" NOT NULL REFERENCES jobs (id),
    name         TEXT NOT NULL,
    position     BIGINT NOT NULL,
    attempt      TEXT COLLATE "C" NOT NULL,
    output       BIGINT NOT NULL,
    size         BIGINT NOT NULL,
    parts        BIGINT NOT NULL,
    digest       TEXT NOT NULL,
    content_type TEXT NOT NULL,
    PRIMARY KEY (job, name)
);

CREATE TABLE idempotency (
    tenant     TEXT COLLATE "C" NOT NULL,
    key        TEXT NOT NULL,
    request    BYTEA NOT NULL,
    answer     BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- Tasks that have become ready, written with the move that made them so; the relay tells the dispatch index and deletes.
CREATE TABLE outbox (
    id   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task TEXT COLLATE "C" NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Events as they were committed, each with its move. The sequencer gives them their place in their tenant's chain and moves
-- them to `events`: a number drawn here would make the moves of one tenant wait for each other.
CREATE TABLE journal (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant  TEXT COLLATE "C" NOT NULL,
    job     TEXT COLLATE "C" NOT NULL,
    kind    TEXT NOT NULL,
    state   TEXT NOT NULL,
    stage   TEXT NOT NULL,
    failure TEXT,
    at      BIGINT NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX journal_of_tenant ON journal (tenant, id);

-- The head of each tenant's chain: who sequences for a tenant holds this row's lock.
CREATE TABLE chains (
    tenant     TEXT COLLATE "C" PRIMARY KEY REFERENCES tenants (id),
    seq        BIGINT NOT NULL DEFAULT 0,
    hash       BYTEA NOT NULL,
    chained_at BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- Append only. A partition holds the events that were chained in one month; `chained_at` never falls within a tenant, so a
-- partition is one piece of each chain. There is no default partition: an event that has no partition stays in the journal
-- and the sequencer says so, instead of filling a table that nobody looks at.
CREATE TABLE events (
    tenant     TEXT COLLATE "C" NOT NULL,
    seq        BIGINT NOT NULL,
    chained_at BIGINT NOT NULL,
    digest     BYTEA NOT NULL,
    hash       BYTEA NOT NULL,
    -- Null once the tenant's data was erased. The digest stays and, without its salt, says nothing of what it was made from.
    salt       BYTEA,
    job        TEXT COLLATE "C",
    kind       TEXT,
    state      TEXT,
    stage      TEXT,
    failure    TEXT,
    at         BIGINT,
    PRIMARY KEY (tenant, seq, chained_at)
) PARTITION BY RANGE (chained_at);
CREATE INDEX events_of_job ON events (job, seq);

CREATE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.tenant = OLD.tenant AND NEW.seq = OLD.seq AND NEW.chained_at = OLD.chained_at
            AND NEW.digest = OLD.digest AND NEW.hash = OLD.hash
            AND NEW.salt IS NULL AND NEW.job IS NULL AND NEW.kind IS NULL AND NEW.state IS NULL AND NEW.stage IS NULL
            AND NEW.failure IS NULL AND NEW.at IS NULL
        THEN
            RETURN NEW; -- Erased; the chain has a record of it.
        END IF;
    END IF;
    RAISE EXCEPTION 'events are append-only';
END $$;
CREATE TRIGGER events_are_not_changed BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION events_are_append_only();
CREATE TRIGGER events_are_not_emptied BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_are_append_only();

-- Where a tenant's chain goes on after a partition was dropped.
CREATE TABLE anchors (
    tenant     TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    seq        BIGINT NOT NULL,
    hash       BYTEA NOT NULL,
    partition  TEXT NOT NULL,
    dropped_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, seq)
);
