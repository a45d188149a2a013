-- Rules by which objects that arrive in a tenant's own storage become jobs.
CREATE TABLE intake_rules (
    id             TEXT PRIMARY KEY,
    tenant         TEXT NOT NULL REFERENCES tenants (id),
    prefix         TEXT NOT NULL,
    suffix         TEXT NOT NULL,
    job            TEXT NOT NULL,
    poll_seconds   INTEGER,
    existing       INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    -- How far a look at the storage has come, and when it goes on.
    cursor         TEXT NOT NULL DEFAULT '',
    next_look_at   INTEGER,
    looked_at      INTEGER,
    problem        TEXT,
    problem_key    TEXT,
    problem_at     INTEGER
) STRICT;
CREATE INDEX intake_rules_of_tenant ON intake_rules (tenant, id);
CREATE INDEX intake_rules_to_look ON intake_rules (next_look_at) WHERE next_look_at IS NOT NULL;

-- Objects, each as it was at one time: a job was made of it, or it was refused. Written with the job, so that there is one.
CREATE TABLE intake_objects (
    rule      TEXT NOT NULL REFERENCES intake_rules (id),
    bucket    TEXT NOT NULL,
    object    TEXT NOT NULL,
    version   TEXT NOT NULL,
    modified  INTEGER NOT NULL,
    sequencer TEXT,
    -- No reference: jobs are deleted, and make no second one by that.
    job       TEXT,
    noted_at  INTEGER NOT NULL,
    PRIMARY KEY (rule, bucket, object, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX intake_objects_by_age ON intake_objects (noted_at);
