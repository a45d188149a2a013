CREATE TABLE webhooks (
    id           TEXT COLLATE "C" PRIMARY KEY,
    tenant       TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    url          TEXT NOT NULL,
    types        TEXT NOT NULL,
    description  TEXT,
    disabled     TEXT CHECK (disabled IN ('gone', 'failing')),
    -- The last of the tenant's events that messages were made of.
    cursor       BIGINT NOT NULL,
    -- Salts, not secrets.
    secrets      TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    succeeded_at BIGINT
) WITH (fillfactor = 70);
CREATE INDEX webhooks_of_tenant ON webhooks (tenant, id);

CREATE TABLE deliveries (
    id          TEXT COLLATE "C" PRIMARY KEY,
    webhook     TEXT COLLATE "C" NOT NULL REFERENCES webhooks (id),
    type        TEXT NOT NULL,
    job         TEXT COLLATE "C" NOT NULL,
    body        TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts    BIGINT NOT NULL DEFAULT 0,
    next_at     BIGINT NOT NULL,
    last_status BIGINT,
    last_error  TEXT,
    created_at  BIGINT NOT NULL,
    ended_at    BIGINT
) WITH (fillfactor = 70);
CREATE INDEX deliveries_of_webhook ON deliveries (webhook, id);
CREATE INDEX deliveries_due ON deliveries (next_at) WHERE state = 'pending';
CREATE INDEX deliveries_pending ON deliveries (webhook) WHERE state = 'pending';
CREATE INDEX deliveries_ended ON deliveries (ended_at) WHERE state <> 'pending';
