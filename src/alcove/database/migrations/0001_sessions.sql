-- The common subset of SQLite and PostgreSQL (which has no WITHOUT ROWID: its driver leaves that out).
-- Instants are microseconds since the epoch, UTC; JSON is TEXT; booleans are 0/1; '' stands for "none" in keys.

-- What a session is. Nothing here changes when a message is appended, so that a turn rewrites no index and no metadata.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    app TEXT NOT NULL,
    user_id TEXT NOT NULL,
    key TEXT,
    parent_id TEXT NOT NULL,
    root_id TEXT NOT NULL,
    depth BIGINT NOT NULL,
    title TEXT NOT NULL,
    agent TEXT NOT NULL,
    metadata TEXT NOT NULL,
    pinned BIGINT NOT NULL,
    ttl BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    trash_id TEXT NOT NULL,
    trashed_at BIGINT NOT NULL
);
CREATE INDEX sessions_by_tenant ON sessions (tenant, created_at, id);
CREATE INDEX sessions_by_user ON sessions (tenant, user_id, created_at, id);
CREATE INDEX sessions_by_app ON sessions (tenant, app, created_at, id);
CREATE INDEX sessions_by_parent ON sessions (parent_id, created_at, id);
CREATE INDEX sessions_by_root ON sessions (root_id, created_at, id);
CREATE INDEX sessions_by_trash ON sessions (trash_id, id);

-- Where a session stands: the one small row that every activity locks and rewrites.
CREATE TABLE heads (
    session_id TEXT PRIMARY KEY,
    last_seq BIGINT NOT NULL,
    cleared_seq BIGINT NOT NULL,
    message_count BIGINT NOT NULL,
    turn_count BIGINT NOT NULL,
    child_count BIGINT NOT NULL,
    last_activity BIGINT NOT NULL,
    -- 0 for never: also for a pinned session, whatever its own TTL says.
    idle_limit BIGINT NOT NULL,
    trashed BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    lease_run TEXT NOT NULL,
    lease_until BIGINT NOT NULL
) WITHOUT ROWID;

-- A key belongs to one session at a time; trashing frees it.
CREATE TABLE session_keys (
    tenant TEXT NOT NULL,
    app TEXT NOT NULL,
    user_id TEXT NOT NULL,
    key TEXT NOT NULL,
    session_id TEXT NOT NULL,
    PRIMARY KEY (tenant, app, user_id, key)
) WITHOUT ROWID;
CREATE INDEX session_keys_by_session ON session_keys (session_id);

-- Metadata equality, the same on every database: one row for each top-level scalar, its value as JSON. In the order
-- of a listing, so that a page costs the same whether few or many sessions have the value.
CREATE TABLE session_metadata (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    session_id TEXT NOT NULL,
    PRIMARY KEY (tenant, name, value, created_at, session_id)
) WITHOUT ROWID;
CREATE INDEX session_metadata_by_session ON session_metadata (session_id);

-- Turns, messages and answers are tables with a row id: new rows go to the end, so that a commit of many sessions'
-- turns rewrites few pages; their primary keys are the (small) indexes that reads seek in.
CREATE TABLE turns (
    session_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    status TEXT NOT NULL,
    run_id TEXT NOT NULL,
    opened_at BIGINT NOT NULL,
    closed_at BIGINT NOT NULL,
    PRIMARY KEY (session_id, number)
);

CREATE TABLE messages (
    session_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    turn BIGINT NOT NULL,
    role TEXT NOT NULL,
    format BIGINT NOT NULL,
    content TEXT NOT NULL,
    detail TEXT NOT NULL,
    hidden BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (session_id, seq)
);

-- The answer to a request that carried an idempotency key, written with the request's effect.
CREATE TABLE idempotency (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    answer TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (scope, key)
);

CREATE TABLE workspaces (
    session_id TEXT PRIMARY KEY,
    uid BIGINT NOT NULL,
    files BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    measured_at BIGINT NOT NULL
) WITHOUT ROWID;
-- A leased uid belongs to one session of the installation; 0 is "none" and shared.
CREATE TABLE uids (
    uid BIGINT PRIMARY KEY,
    session_id TEXT NOT NULL
);

CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    turn BIGINT NOT NULL,
    agent TEXT NOT NULL,
    status TEXT NOT NULL,
    exit_code BIGINT,
    error TEXT NOT NULL,
    answer_seq BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    cancelling BIGINT NOT NULL,
    -- The process that looks after it and the tree of processes that it started, each so named that it is never
    -- taken for another one with the same pid.
    holder TEXT NOT NULL,
    tree TEXT NOT NULL,
    -- What it may touch, canonical JSON, frozen when it started, and the SHA-256 of that.
    authority TEXT NOT NULL,
    digest TEXT NOT NULL,
    rung TEXT NOT NULL,
    guarantees TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL
);
CREATE INDEX runs_by_session ON runs (session_id, created_at, id);
CREATE INDEX runs_by_age ON runs (created_at, id);
CREATE INDEX runs_live ON runs (session_id) WHERE ended_at = 0;

-- What happened in a run, in order, from n = 1: the journal that streams resume from.
CREATE TABLE events (
    run_id TEXT NOT NULL,
    n BIGINT NOT NULL,
    type TEXT NOT NULL,
    data TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (run_id, n)
) WITHOUT ROWID;

-- Facts about the installation itself, its id first of all.
CREATE TABLE installation (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
