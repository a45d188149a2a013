-- Storage that a pool's workers fetch from themselves, and the copy of the pool that says so, a JSON document; null where everything
-- goes through the broker.
ALTER TABLE pools ADD COLUMN storage TEXT;
-- Parts that a worker was given a URL for: of each there is one content, whoever asks again and whichever broker.
CREATE TABLE announced (
    attempt TEXT COLLATE "C" NOT NULL,
    output  BIGINT NOT NULL,
    part    BIGINT NOT NULL,
    size    BIGINT NOT NULL,
    sha256  BYTEA NOT NULL,
    PRIMARY KEY (attempt, output, part)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
