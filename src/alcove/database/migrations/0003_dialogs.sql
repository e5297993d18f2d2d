-- Dialogs: their definitions, where each session's stands, and every step that it took.

-- A definition is never changed: sessions that began with it may still be there after a restart.
CREATE TABLE dialog_definitions (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    number BIGINT NOT NULL,
    digest TEXT NOT NULL,
    -- The newer version that declares how sessions come into it from this one, '' for none: read by every step.
    next TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- JSON, as it was declared; the digest is of its canonical form. Last, because it may be long.
    source TEXT NOT NULL
);
CREATE UNIQUE INDEX dialog_definitions_by_name ON dialog_definitions (tenant, name, number);

-- Where the dialog of a session stands: its newest step (0 for none yet), its state, when that times out (0 for never).
ALTER TABLE heads ADD COLUMN dialog_version BIGINT NOT NULL DEFAULT 0;
ALTER TABLE heads ADD COLUMN dialog_state TEXT NOT NULL DEFAULT '';
ALTER TABLE heads ADD COLUMN dialog_due BIGINT NOT NULL DEFAULT 0;
CREATE INDEX heads_by_dialog_due ON heads (dialog_due, session_id) WHERE dialog_due > 0;

-- What happened in a dialog, in order, from version 1: the newest one has the slots, and subscribers read them all.
CREATE TABLE dialog_steps (
    session_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    -- `start event timeout reset set restore leave`.
    cause TEXT NOT NULL,
    event TEXT NOT NULL,
    state_before TEXT NOT NULL,
    state TEXT NOT NULL,
    -- JSON.
    slots TEXT NOT NULL,
    -- '' for a dialog without one.
    definition TEXT NOT NULL,
    -- What a time-out told the user.
    message TEXT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Of a time-out: until when somebody is telling it, 0 while nobody is, -1 once it was told. Of the others: -1.
    telling BIGINT NOT NULL,
    PRIMARY KEY (session_id, version)
) WITHOUT ROWID;
CREATE INDEX dialog_steps_untold ON dialog_steps (created_at, session_id) WHERE telling >= 0;
