-- Keys by which callers are told apart. The secret itself is kept nowhere: `digest` is its SHA-256, in hex.
-- Revoked and expired keys stay, so that records which name them can be read.
CREATE TABLE principal_keys (
    id TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    role TEXT NOT NULL,
    user_id TEXT NOT NULL,
    label TEXT NOT NULL,
    rate_per_s BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL
);
CREATE INDEX principal_keys_by_tenant ON principal_keys (tenant, id);
