-- What is told of the job's plan: what it costs, and why it does not play early. Null where it was not probed, or by a release that did not
-- keep it.
ALTER TABLE jobs ADD COLUMN planned TEXT;
