-- What runs ask a person, and the answer. `arguments` is canonical JSON; `digest` is the SHA-256, in hex, of run, type, id,
-- operation and arguments: an answer is about exactly that.
CREATE TABLE approvals (
    id TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    user_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    agent TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    operation TEXT NOT NULL,
    arguments TEXT NOT NULL,
    digest TEXT NOT NULL,
    message TEXT NOT NULL,
    -- 'waiting', or how it was answered: 'approved', 'denied', 'expired', 'cancelled'.
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    decided_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    decided_at BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX approvals_by_run ON approvals (run_id, created_at, id);
CREATE INDEX approvals_by_tenant ON approvals (tenant, created_at, id);
CREATE INDEX approvals_by_age ON approvals (created_at, id);
CREATE INDEX approvals_open ON approvals (created_at, id) WHERE status = 'waiting';
CREATE INDEX approvals_due ON approvals (expires_at) WHERE status = 'waiting';
-- The same question is open once.
CREATE UNIQUE INDEX approvals_once ON approvals (run_id, digest) WHERE status = 'waiting';
