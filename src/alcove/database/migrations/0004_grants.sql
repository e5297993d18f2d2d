-- What runs may do. `grants.body` is canonical JSON, frozen when the run starts, and its SHA-256 is the run's digest;
-- what is withdrawn later is a row of `grant_changes` beside it. A run may be handed its rights by another one.
ALTER TABLE runs ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default';
ALTER TABLE runs ADD COLUMN user_id TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN parent_run TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN root_run TEXT NOT NULL DEFAULT '';
UPDATE runs SET
    root_run = id,
    tenant = COALESCE((SELECT tenant FROM sessions WHERE sessions.id = runs.session_id), 'default'),
    user_id = COALESCE((SELECT user_id FROM sessions WHERE sessions.id = runs.session_id), '');
CREATE INDEX runs_by_tenant ON runs (tenant, created_at, id);
CREATE INDEX runs_by_user ON runs (tenant, user_id, created_at, id);
CREATE INDEX runs_by_root ON runs (root_run, created_at, id);

CREATE TABLE grants (
    run_id TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    -- What was asked for and not granted, by whom it was cut off.
    cuts TEXT NOT NULL,
    changes BIGINT NOT NULL
);
INSERT INTO grants (run_id, body, cuts, changes) SELECT id, authority, '[]', 0 FROM runs;
ALTER TABLE runs DROP COLUMN authority;

CREATE TABLE grant_changes (
    run_id TEXT NOT NULL,
    n BIGINT NOT NULL,
    -- 'revoke', or 'narrow' with the rights that bound it from then on.
    kind TEXT NOT NULL,
    rights TEXT NOT NULL,
    reason TEXT NOT NULL,
    made_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (run_id, n)
) WITHOUT ROWID;

-- What runs in a session, and in those below it, may be granted at most.
CREATE TABLE ceilings (
    session_id TEXT PRIMARY KEY,
    rights TEXT NOT NULL,
    set_at BIGINT NOT NULL
) WITHOUT ROWID;
