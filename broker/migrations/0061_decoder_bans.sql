-- Decoders and demuxers that no task may use for now, on any worker.
CREATE TABLE decoder_bans (
    name   TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    at     INTEGER NOT NULL
) STRICT;
