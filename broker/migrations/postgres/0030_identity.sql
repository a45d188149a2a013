-- Pools of a cluster, as its operator pushes them: the resources are the truth, this is the copy. A pool without a row here is one
-- of join tokens alone.
CREATE TABLE pools (
    name        TEXT COLLATE "C" PRIMARY KEY,
    namespace   TEXT COLLATE "C" NOT NULL,
    -- The service account whose pods are this pool's workers, and nobody else's.
    account     TEXT COLLATE "C" NOT NULL,
    uid         TEXT NOT NULL,
    generation  BIGINT NOT NULL,
    tenant      TEXT COLLATE "C" REFERENCES tenants (id),
    max_workers BIGINT NOT NULL,
    closed      BOOLEAN NOT NULL DEFAULT FALSE,
    -- Digest of the policies that verdicts are about; none where the pool needs no verdict.
    policy      TEXT,
    UNIQUE (namespace, account)
);

-- Whether the policies of a pool hold on a node, as canaries found; good until it expires.
CREATE TABLE verdicts (
    pool       TEXT COLLATE "C" NOT NULL,
    policy     TEXT NOT NULL,
    node       TEXT NOT NULL,
    verified   BOOLEAN NOT NULL,
    reason     TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (pool, policy, node)
);

-- A worker that is a pod has the pod's UID as its id.
ALTER TABLE workers ADD COLUMN pod TEXT;
ALTER TABLE workers ADD COLUMN node TEXT;
ALTER TABLE workers ADD COLUMN key_sha256 BYTEA;
ALTER TABLE workers ADD COLUMN cordoned_at BIGINT;
ALTER TABLE workers ADD COLUMN revoked_at BIGINT;
-- Its tenant had nothing while others did: another pod is to take its place.
ALTER TABLE workers ADD COLUMN retired_at BIGINT;
CREATE INDEX workers_of_pool ON workers (pool, cert_expires_at);
CREATE INDEX workers_revoked ON workers (revoked_at) WHERE revoked_at IS NOT NULL;

-- What the operator pushed last of a tenant; nothing where people manage it.
ALTER TABLE tenants ADD COLUMN pushed_uid TEXT;
ALTER TABLE tenants ADD COLUMN pushed_generation BIGINT;
