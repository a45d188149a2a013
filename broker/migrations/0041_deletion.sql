-- A job that was deleted is gone for everybody but the sweep, which removes its files, then its events, then its rows.
ALTER TABLE jobs ADD COLUMN deleted_at INTEGER;
CREATE INDEX jobs_deleted ON jobs (tenant) WHERE deleted_at IS NOT NULL;
-- A tenant that was deleted keeps its id and nothing else.
ALTER TABLE tenants ADD COLUMN deleted_at INTEGER;
ALTER TABLE tenants ADD COLUMN erased_at INTEGER;

DROP TRIGGER events_are_not_deleted;
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM jobs WHERE id = OLD.job AND deleted_at IS NOT NULL)
BEGIN SELECT RAISE (ABORT, 'events are append-only'); END;
