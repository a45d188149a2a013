-- Storage that a pool's workers fetch from themselves, and the copy of the pool that says so, a JSON document; null where everything
-- goes through the broker.
ALTER TABLE pools ADD COLUMN storage TEXT;
-- Parts that a worker was given a URL for: of each there is one content, whoever asks again and whichever broker.
CREATE TABLE announced (
    attempt TEXT NOT NULL,
    output  INTEGER NOT NULL,
    part    INTEGER NOT NULL,
    size    INTEGER NOT NULL,
    sha256  BLOB NOT NULL,
    PRIMARY KEY (attempt, output, part)
) STRICT, WITHOUT ROWID;
