-- Where a job's spans belong: its trace, its own span, that of the request that made it, and when that began. Null where it is not traced.
ALTER TABLE jobs ADD COLUMN trace TEXT;
