-- How sessions end: when, by whose word, where they wait, and what is known of it afterwards.

-- When a session expires whatever happens, 0 for never.
ALTER TABLE sessions ADD COLUMN ends_at BIGINT NOT NULL DEFAULT 0;

-- The same beside the idle limit, where every activity looks: the end of time for never, and for a pinned session.
ALTER TABLE heads ADD COLUMN ends_at BIGINT NOT NULL DEFAULT 9223372036854775807;

-- When the janitor looks at it next: never later than it expires, 0 for a session that does not. Activity does not move
-- it, so that a turn rewrites no index; the janitor does, when it has looked.
ALTER TABLE heads ADD COLUMN due_at BIGINT NOT NULL DEFAULT 0;
UPDATE heads SET due_at = 1 WHERE idle_limit > 0 AND trashed = 0;
CREATE INDEX heads_by_due ON heads (due_at, session_id) WHERE due_at > 0;

-- Everything that went to the trash together. heads.trashed is 1 for its sessions, 2 for those that are being purged.
CREATE TABLE trashings (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    -- The session that was trashed, and how many went with it, itself included.
    session_id TEXT NOT NULL,
    sessions BIGINT NOT NULL,
    why TEXT NOT NULL,
    who TEXT NOT NULL,
    trashed_at BIGINT NOT NULL,
    -- `kept`, or what is being done with it (`moving restoring purging`), why, for whom, by which call and until when.
    step TEXT NOT NULL,
    step_why TEXT NOT NULL,
    step_who TEXT NOT NULL,
    claim TEXT NOT NULL,
    claimed_until BIGINT NOT NULL
);
CREATE INDEX trashings_by_step ON trashings (step, trashed_at, id);
CREATE INDEX trashings_by_tenant ON trashings (tenant, trashed_at, id);
INSERT INTO trashings
    (id, tenant, session_id, sessions, why, who, trashed_at, step, step_why, step_who, claim, claimed_until)
    SELECT s.trash_id, s.tenant, s.id, (SELECT COUNT(*) FROM sessions o WHERE o.trash_id = s.trash_id),
        'asked', '', s.trashed_at, 'kept', '', '', '', 0
    FROM sessions s WHERE s.trashed_at > 0
        AND NOT EXISTS (SELECT 1 FROM sessions p WHERE p.id = s.parent_id AND p.trash_id = s.trash_id)
    ON CONFLICT (id) DO NOTHING;

-- The log of what went and what came back. It holds ids and reasons, nothing of the sessions; it stays after the purge.
CREATE TABLE deeds (
    session_id TEXT NOT NULL,
    trash_id TEXT NOT NULL,
    -- `trashed`, `restored`, `purged`.
    what TEXT NOT NULL,
    tenant TEXT NOT NULL,
    why TEXT NOT NULL,
    who TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- What was removed with it, as JSON; '' for nothing.
    removed TEXT NOT NULL,
    PRIMARY KEY (session_id, trash_id, what)
);
CREATE INDEX deeds_by_time ON deeds (tenant, created_at, session_id, what);

-- The journal of a run is forgotten after a while; 1 while it is whole.
ALTER TABLE runs ADD COLUMN whole BIGINT NOT NULL DEFAULT 1;
CREATE INDEX runs_whole ON runs (ended_at, id) WHERE whole = 1 AND ended_at > 0;

-- What the janitor knows of the clock of each machine: what it showed when it was last looked at, beside one that never
-- jumps, and by how much it was found to have jumped since. No idle time is counted from such a jump.
CREATE TABLE clocks (
    place TEXT PRIMARY KEY,
    wall BIGINT NOT NULL,
    steady BIGINT NOT NULL
);
CREATE TABLE jumps (
    place TEXT NOT NULL,
    number BIGINT NOT NULL,
    -- The last instant that it can have shown before, and the first one after.
    before_at BIGINT NOT NULL,
    after_at BIGINT NOT NULL,
    jump BIGINT NOT NULL,
    PRIMARY KEY (place, number)
);
