-- Runs that a host framework executes itself: it says that they go on, and what they say. Without a word for
-- `stale_after` microseconds they are lost. `token` is the SHA-256, in hex, of what a run may call the server with.
ALTER TABLE runs ADD COLUMN hosted BIGINT NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN due_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN stale_after BIGINT NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN said_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN token TEXT NOT NULL DEFAULT '';
CREATE INDEX runs_due ON runs (due_at) WHERE hosted = 1 AND ended_at = 0;
CREATE INDEX runs_active ON runs (created_at, id) WHERE ended_at = 0;
CREATE UNIQUE INDEX runs_by_token ON runs (token) WHERE token <> '';
