-- Where a tenant's objects lie, and the name of what the broker gets in by: a JSON document without a secret. Null where they lie with
-- those of all.
ALTER TABLE tenants ADD COLUMN storage TEXT;
-- Inputs that are no uploads and that broke a lock or the codec's protocol, by the id that a version of an object always has.
CREATE TABLE quarantined_inputs (
    input  TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
