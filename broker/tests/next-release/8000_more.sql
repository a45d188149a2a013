-- What a release after this one may bring: tables of its own, and columns that this one does not mind, also in the tables that are
-- written most.
CREATE TABLE next_things (id TEXT COLLATE "C" PRIMARY KEY, tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (id));
ALTER TABLE jobs ADD COLUMN next_note TEXT;
ALTER TABLE tasks ADD COLUMN next_weight BIGINT NOT NULL DEFAULT 1 CHECK (next_weight > 0);
ALTER TABLE attempts ADD COLUMN next_note TEXT;
ALTER TABLE leases ADD COLUMN next_note TEXT;
ALTER TABLE workers ADD COLUMN next_label TEXT;
CREATE INDEX next_jobs ON jobs (next_note) WHERE next_note IS NOT NULL;
