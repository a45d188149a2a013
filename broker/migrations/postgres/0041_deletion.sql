-- A job that was deleted is gone for everybody but the sweep, which removes its files, then what its events say, then its rows.
ALTER TABLE jobs ADD COLUMN deleted_at BIGINT;
CREATE INDEX jobs_deleted ON jobs (tenant) WHERE deleted_at IS NOT NULL;
-- A tenant that was deleted keeps its id, its chain of digests, and nothing else.
ALTER TABLE tenants ADD COLUMN deleted_at BIGINT;
ALTER TABLE tenants ADD COLUMN erased_at BIGINT;
