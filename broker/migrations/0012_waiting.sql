-- What the codecs of an attempt wrote, for the job's tenant. Bounded by whoever writes it.
CREATE TABLE attempt_logs (
    attempt TEXT PRIMARY KEY REFERENCES attempts (id),
    job     TEXT NOT NULL REFERENCES jobs (id),
    text    TEXT NOT NULL,
    cut     INTEGER NOT NULL DEFAULT 0,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX attempt_logs_of_job ON attempt_logs (job, attempt);
CREATE INDEX attempt_logs_by_age ON attempt_logs (at);
