-- What a window has to know before it looks at the rounds: system messages and summaries, pinned messages (1), and
-- those of a repair (2), which stand in another place than their seq says.
ALTER TABLE messages ADD COLUMN kept BIGINT NOT NULL DEFAULT 0;
CREATE INDEX messages_kept ON messages (session_id, seq) WHERE role IN ('system', 'developer') OR kept > 0;

-- Bytes by their SHA-256. A row comes before its file and goes before it, and each file has a name of its own: so
-- whoever removes a file can only remove the one whose row is gone.
CREATE TABLE objects (
    hash TEXT PRIMARY KEY,
    file TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    refs BIGINT NOT NULL,
    -- 1 once a file is known to be there: with the first message that refers to it.
    written BIGINT NOT NULL,
    touched_at BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX objects_unused ON objects (touched_at, hash) WHERE refs = 0;
CREATE TABLE object_refs (
    session_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (session_id, seq, hash)
) WITHOUT ROWID;
-- Files whose rows are gone: written with their going, removed when the file is.
CREATE TABLE object_remains (
    file TEXT PRIMARY KEY
) WITHOUT ROWID;
CREATE INDEX object_refs_by_hash ON object_refs (hash);
