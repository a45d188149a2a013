-- Rules by which objects that arrive in a tenant's own storage become jobs.
CREATE TABLE intake_rules (
    id             TEXT COLLATE "C" PRIMARY KEY,
    tenant         TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    prefix         TEXT NOT NULL,
    suffix         TEXT NOT NULL,
    job            TEXT NOT NULL,
    poll_seconds   BIGINT,
    existing       BOOLEAN NOT NULL,
    created_at     BIGINT NOT NULL,
    -- How far a look at the storage has come, and when it goes on.
    cursor         TEXT NOT NULL DEFAULT '',
    next_look_at   BIGINT,
    looked_at      BIGINT,
    problem        TEXT,
    problem_key    TEXT,
    problem_at     BIGINT
);
CREATE INDEX intake_rules_of_tenant ON intake_rules (tenant, id);
CREATE INDEX intake_rules_to_look ON intake_rules (next_look_at) WHERE next_look_at IS NOT NULL;

-- Objects, each as it was at one time: a job was made of it, or it was refused. Written with the job, so that there is one.
CREATE TABLE intake_objects (
    rule      TEXT COLLATE "C" NOT NULL,
    bucket    TEXT COLLATE "C" NOT NULL,
    object    TEXT COLLATE "C" NOT NULL,
    version   TEXT COLLATE "C" NOT NULL,
    modified  BIGINT NOT NULL,
    sequencer TEXT COLLATE "C",
    -- No reference: jobs are deleted, and make no second one by that.
    job       TEXT COLLATE "C",
    noted_at  BIGINT NOT NULL,
    PRIMARY KEY (rule, bucket, object, version)
);
CREATE INDEX intake_objects_by_age ON intake_objects (noted_at);
