-- Requests that their clients may repeat without making a change twice. A row is that of one Idempotency-Key of one account.
CREATE TABLE idempotency_keys (
  id            text PRIMARY KEY, -- a hash of the account and the key
  account_guid  text NOT NULL REFERENCES accounts (guid) ON DELETE CASCADE,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  request_id    text NOT NULL, -- the request that is carried out, as in the audit log
  began         timestamptz NOT NULL, -- when that began, by the clock of its replica
  claimed_until timestamptz, -- until when its replica carries it out, unless it says so again; null: it has ended
  sealed        bytea NOT NULL -- what the request is and, once it is known, its answer
);
CREATE INDEX idempotency_keys_account ON idempotency_keys (account_guid, created_at);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
