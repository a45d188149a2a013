-- What a tenant may have instead of what all may: a JSON document. Null where it is the same.
ALTER TABLE tenants ADD COLUMN limits TEXT;
CREATE INDEX attempts_live_of_tenant ON attempts (tenant) WHERE state = 'live';
