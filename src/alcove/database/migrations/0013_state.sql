-- Values by scope: of a session, a user, a subject, an agent, an app or a run. Those of a session and of a run have the tenant
-- and the app '': their ids are nobody else's. `expires_at` 0 is never.
CREATE TABLE state_values (
    tenant TEXT NOT NULL,
    app TEXT NOT NULL,
    scope TEXT NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, app, scope, owner, name)
);
CREATE INDEX state_values_by_expiry ON state_values (expires_at) WHERE expires_at > 0;
CREATE INDEX state_values_of_runs ON state_values (owner) WHERE scope = 'run';
