-- Who goes first: a tenant's share of a pool, and a task's place among its tenant's. A broker of the version before writes
-- neither and gets the defaults.
ALTER TABLE tenants ADD COLUMN weight BIGINT NOT NULL DEFAULT 100 CHECK (weight BETWEEN 1 AND 10000);
ALTER TABLE tasks ADD COLUMN priority BIGINT NOT NULL DEFAULT 5 CHECK (priority BETWEEN 0 AND 9);

-- Which broker does what only one may do at a time. The epoch is one higher with every change of hands; what a leader changes,
-- it changes only where its epoch is still the one here.
CREATE TABLE leaders (
    duty   TEXT COLLATE "C" PRIMARY KEY,
    holder TEXT COLLATE "C" NOT NULL,
    epoch  BIGINT NOT NULL,
    until  BIGINT NOT NULL
);

-- Which broker writes an upload, so that two do not write one at once, and another can go on when that one is gone.
CREATE TABLE upload_writers (
    upload TEXT COLLATE "C" PRIMARY KEY,
    holder TEXT COLLATE "C" NOT NULL,
    until  BIGINT NOT NULL
);
