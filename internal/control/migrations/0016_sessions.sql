-- Sign-ins of people in a browser, by the SHA-256 of the session's secret. What ends the tokens of an account, ends them too:
-- they have its epoch.
CREATE TABLE console_sessions (
  id           uuid PRIMARY KEY,
  secret_hash  bytea NOT NULL UNIQUE,
  account_id   bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
  epoch        uuid NOT NULL,
  address      text NOT NULL, -- that it began at
  client       text NOT NULL, -- the browser, as it names itself
  created_at   timestamptz NOT NULL,
  proven_at    timestamptz NOT NULL, -- when the person last proved who they are
  last_used_at timestamptz NOT NULL, -- up to a minute late
  expires_at   timestamptz NOT NULL  -- its last end, however much it is used
);
CREATE INDEX console_sessions_account ON console_sessions (account_id);

-- Where the sign-in was used last; '': not known.
ALTER TABLE refresh_tokens ADD COLUMN address text NOT NULL DEFAULT '';
