-- What the codecs of an attempt wrote, for the job's tenant. Bounded by whoever writes it.
CREATE TABLE attempt_logs (
    attempt TEXT COLLATE "C" PRIMARY KEY,
    job     TEXT COLLATE "C" NOT NULL,
    text    TEXT NOT NULL,
    cut     BOOLEAN NOT NULL DEFAULT FALSE,
    at      BIGINT NOT NULL
);
CREATE INDEX attempt_logs_of_job ON attempt_logs (job, attempt);
CREATE INDEX attempt_logs_by_age ON attempt_logs (at);

-- Which pools' workers each broker has connections of: one row for each pool and broker, written every few seconds.
CREATE TABLE pools_seen (
    broker  TEXT NOT NULL,
    pool    TEXT NOT NULL,
    workers BIGINT NOT NULL,
    idle    BIGINT NOT NULL,
    at      BIGINT NOT NULL,
    PRIMARY KEY (broker, pool)
) WITH (fillfactor = 50);
