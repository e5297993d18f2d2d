-- When an approval answered a check of something that needs one; it serves once.
ALTER TABLE approvals ADD COLUMN used_at BIGINT NOT NULL DEFAULT 0;
