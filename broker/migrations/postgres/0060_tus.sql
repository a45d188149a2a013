-- What a tus client said of an upload, as it said it; it is told again.
ALTER TABLE uploads ADD COLUMN metadata TEXT;
-- Whether another call wants to go on with the upload; whoever holds it then lets go.
ALTER TABLE upload_writers ADD COLUMN asked BOOLEAN NOT NULL DEFAULT FALSE;
