-- The folder that a tenant wants a job's output to be found in. A job that failed or was canceled leaves it to another.
ALTER TABLE jobs ADD COLUMN path TEXT COLLATE "C";
CREATE UNIQUE INDEX jobs_by_path ON jobs (tenant, path) WHERE path IS NOT NULL AND state NOT IN ('failed', 'canceled');
