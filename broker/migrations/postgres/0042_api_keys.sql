-- What a key may do, words with commas between them, and until when. Keys of before may do all, for ever.
ALTER TABLE api_keys ADD COLUMN scopes TEXT NOT NULL DEFAULT 'all';
ALTER TABLE api_keys ADD COLUMN expires_at BIGINT;
CREATE INDEX api_keys_of_tenant ON api_keys (tenant);
