-- Messages that wait until their session is free, in order: those that interrupted before all others. The run of each is there
-- already, with the status `queued`; the row goes in the transaction that starts it.
CREATE TABLE queue (
    run_id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    urgent BIGINT NOT NULL,
    position BIGINT NOT NULL,
    wish TEXT NOT NULL,
    -- The process that took it in, so named that it is never taken for another one with the same pid.
    holder TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX queue_in_order ON queue (session_id, urgent, position);

-- Messages for runs that go on: they wait until the run takes them, and are returned when it has ended before.
CREATE TABLE steering (
    run_id TEXT NOT NULL,
    n BIGINT NOT NULL,
    message TEXT NOT NULL,
    made_by TEXT NOT NULL,
    returned BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (run_id, n)
);
-- How many messages were put to a run so far.
ALTER TABLE runs ADD COLUMN steered BIGINT NOT NULL DEFAULT 0;
