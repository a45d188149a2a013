CREATE TABLE webhooks (
    id           TEXT PRIMARY KEY,
    tenant       TEXT NOT NULL REFERENCES tenants (id),
    url          TEXT NOT NULL,
    types        TEXT NOT NULL,
    description  TEXT,
    disabled     TEXT CHECK (disabled IN ('gone', 'failing')),
    -- The last of the tenant's events that messages were made of.
    cursor       INTEGER NOT NULL,
    -- Salts, not secrets.
    secrets      TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    succeeded_at INTEGER
) STRICT;
CREATE INDEX webhooks_of_tenant ON webhooks (tenant, id);

CREATE TABLE deliveries (
    id          TEXT PRIMARY KEY,
    webhook     TEXT NOT NULL REFERENCES webhooks (id),
    type        TEXT NOT NULL,
    job         TEXT NOT NULL,
    body        TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts    INTEGER NOT NULL DEFAULT 0,
    next_at     INTEGER NOT NULL,
    last_status INTEGER,
    last_error  TEXT,
    created_at  INTEGER NOT NULL,
    ended_at    INTEGER
) STRICT;
CREATE INDEX deliveries_of_webhook ON deliveries (webhook, id);
CREATE INDEX deliveries_due ON deliveries (next_at) WHERE state = 'pending';
CREATE INDEX deliveries_pending ON deliveries (webhook) WHERE state = 'pending';
CREATE INDEX deliveries_ended ON deliveries (ended_at) WHERE state <> 'pending';
