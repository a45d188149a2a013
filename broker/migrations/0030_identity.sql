-- Pools of a cluster, as its operator pushes them: the resources are the truth, this is the copy. A pool without a row here is one
-- of join tokens alone.
CREATE TABLE pools (
    name       TEXT PRIMARY KEY,
    namespace  TEXT NOT NULL,
    -- The service account whose pods are this pool's workers, and nobody else's.
    account    TEXT NOT NULL,
    uid        TEXT NOT NULL,
    generation INTEGER NOT NULL,
    tenant     TEXT REFERENCES tenants (id),
    max_workers INTEGER NOT NULL,
    closed     INTEGER NOT NULL DEFAULT 0,
    -- Digest of the policies that verdicts are about; none where the pool needs no verdict.
    policy     TEXT,
    UNIQUE (namespace, account)
) STRICT;

-- Whether the policies of a pool hold on a node, as canaries found; good until it expires.
CREATE TABLE verdicts (
    pool       TEXT NOT NULL,
    policy     TEXT NOT NULL,
    node       TEXT NOT NULL,
    verified   INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (pool, policy, node)
) STRICT, WITHOUT ROWID;

-- A worker that is a pod has the pod's UID as its id.
ALTER TABLE workers ADD COLUMN pod TEXT;
ALTER TABLE workers ADD COLUMN node TEXT;
ALTER TABLE workers ADD COLUMN key_sha256 BLOB;
ALTER TABLE workers ADD COLUMN cordoned_at INTEGER;
ALTER TABLE workers ADD COLUMN revoked_at INTEGER;
-- Its tenant had nothing while others did: another pod is to take its place.
ALTER TABLE workers ADD COLUMN retired_at INTEGER;
CREATE INDEX workers_of_pool ON workers (pool, cert_expires_at);
CREATE INDEX workers_revoked ON workers (revoked_at) WHERE revoked_at IS NOT NULL;

-- What the operator pushed last of a tenant; nothing where people manage it.
ALTER TABLE tenants ADD COLUMN pushed_uid TEXT;
ALTER TABLE tenants ADD COLUMN pushed_generation INTEGER;
