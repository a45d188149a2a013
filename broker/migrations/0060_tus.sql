-- What a tus client said of an upload, as it said it; it is told again.
ALTER TABLE uploads ADD COLUMN metadata TEXT;
