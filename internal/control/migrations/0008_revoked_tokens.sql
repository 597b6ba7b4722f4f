-- Access tokens that were revoked before they expire: by their own id, or by the family of the refresh token that they came
-- with. Nothing is looked up here by anything else.
CREATE TABLE revoked_tokens (
  id         uuid PRIMARY KEY,
  expires_at timestamptz NOT NULL
);
CREATE INDEX revoked_tokens_expires ON revoked_tokens (expires_at);
