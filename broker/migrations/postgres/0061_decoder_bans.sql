-- Decoders and demuxers that no task may use for now, on any worker.
CREATE TABLE decoder_bans (
    name   TEXT COLLATE "C" PRIMARY KEY,
    reason TEXT NOT NULL,
    at     BIGINT NOT NULL
);
