-- What each job has taken of its tenant's minutes of a day (days since 1970, UTC), where these are limited. No reference: what was
-- taken stays taken when a finished job is deleted.
CREATE TABLE minutes (
    job      TEXT PRIMARY KEY,
    tenant   TEXT NOT NULL REFERENCES tenants (id),
    day      INTEGER NOT NULL,
    input_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX minutes_of_day ON minutes (tenant, day);
CREATE INDEX jobs_of_upload ON jobs (upload);
