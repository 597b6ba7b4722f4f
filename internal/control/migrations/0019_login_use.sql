-- When the sign-in was used last, up to a minute late; null: not known.
ALTER TABLE refresh_tokens ADD COLUMN last_used_at timestamptz;
