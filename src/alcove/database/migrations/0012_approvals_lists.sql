-- What runs asked, listed by user and by session without looking at anybody else's.
CREATE INDEX approvals_by_user ON approvals (tenant, user_id, created_at, id);
CREATE INDEX approvals_by_session ON approvals (session_id, created_at, id);
