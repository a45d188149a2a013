-- Which version of each of its inputs an attempt reads, for as long as it lives: another broker, or this one after a restart, reads no
-- other.
CREATE TABLE pins (
    attempt TEXT COLLATE "C" NOT NULL,
    input   BIGINT NOT NULL,
    version TEXT NOT NULL,
    PRIMARY KEY (attempt, input)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
