-- Which version of each of its inputs an attempt reads, for as long as it lives: another broker, or this one after a restart, reads no
-- other.
CREATE TABLE pins (
    attempt TEXT NOT NULL,
    input   INTEGER NOT NULL,
    version TEXT NOT NULL,
    PRIMARY KEY (attempt, input)
) STRICT, WITHOUT ROWID;
