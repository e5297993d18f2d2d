-- The search index has a session up to this seq; below 0 its title waits too, and the seq is -(indexed_seq + 1).
ALTER TABLE heads ADD COLUMN indexed_seq BIGINT NOT NULL DEFAULT 0;
UPDATE heads SET indexed_seq = -1;
CREATE INDEX heads_unindexed ON heads (session_id) WHERE last_seq > indexed_seq AND trashed = 0;
