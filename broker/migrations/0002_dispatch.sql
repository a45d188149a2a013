-- Who goes first: a tenant's share of a pool, and a task's place among its tenant's.
ALTER TABLE tenants ADD COLUMN weight INTEGER NOT NULL DEFAULT 100 CHECK (weight BETWEEN 1 AND 10000);
ALTER TABLE tasks ADD COLUMN priority INTEGER NOT NULL DEFAULT 5 CHECK (priority BETWEEN 0 AND 9);
