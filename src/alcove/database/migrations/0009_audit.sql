-- What was denied, and what was done with authority, keys and sessions: rows that are added and never changed.
-- Each is bound to the one before it on the same node by `hash` (SHA-256) and sealed by `seal` (HMAC, under a key that is
-- not in the database). `subject`, `who` and `words` are keyed digests: what they stand for is in `audit_words`.
CREATE TABLE audit (
    node TEXT NOT NULL,
    n BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    -- When the first of `times` was; the last is `created_at`.
    first_at BIGINT NOT NULL,
    act TEXT NOT NULL,
    -- `done`, or why it was denied.
    code TEXT NOT NULL,
    times BIGINT NOT NULL,
    subject TEXT NOT NULL,
    who TEXT NOT NULL,
    words TEXT NOT NULL,
    prev TEXT NOT NULL,
    hash TEXT NOT NULL,
    seal TEXT NOT NULL,
    PRIMARY KEY (node, n)
) WITHOUT ROWID;
CREATE INDEX audit_by_time ON audit (created_at, node, n);
CREATE INDEX audit_by_act ON audit (act, created_at, node, n);

-- What a person reads of a row. It can be erased: then `subject` and `who` are their digests, the rest is '', and `erased`
-- holds the proof that somebody with the key did it.
CREATE TABLE audit_words (
    node TEXT NOT NULL,
    n BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    tenant TEXT NOT NULL,
    user_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    subject TEXT NOT NULL,
    who TEXT NOT NULL,
    words TEXT NOT NULL,
    erased TEXT NOT NULL,
    PRIMARY KEY (node, n)
) WITHOUT ROWID;
CREATE INDEX audit_words_by_subject ON audit_words (subject, created_at, node, n);
CREATE INDEX audit_words_by_session ON audit_words (session_id, created_at, node, n) WHERE session_id <> '';
CREATE INDEX audit_words_by_user ON audit_words (user_id, created_at, node, n) WHERE user_id <> '';
CREATE INDEX audit_words_by_who ON audit_words (who, created_at, node, n);
CREATE INDEX audit_words_by_tenant ON audit_words (tenant, created_at, node, n);

-- Where each node's chain begins and ends, sealed: the checkpoint. What is older was removed by its age or number.
CREATE TABLE audit_chains (
    node TEXT PRIMARY KEY,
    -- The last row, and its hash.
    n BIGINT NOT NULL,
    hash TEXT NOT NULL,
    -- The last row that was removed, 0 for none, and its hash.
    removed BIGINT NOT NULL,
    removed_hash TEXT NOT NULL,
    seal TEXT NOT NULL
) WITHOUT ROWID;
