-- Who gets the rows of the audit log as events, and how far each is: it has accepted everything up to seq. mac is that of
-- this row in the chain, so that a log which was restored from a backup is noticed.
CREATE TABLE followers (
  id            uuid PRIMARY KEY,
  kind          text NOT NULL CHECK (kind IN ('webhook', 'syslog', 'https')),
  seq           bigint NOT NULL,
  mac           bytea NOT NULL,
  delivered_at  timestamptz, -- when it last accepted an event
  failures      integer NOT NULL DEFAULT 0, -- in a row
  failing_since timestamptz, -- null: it does not fail
  last_error    text NOT NULL DEFAULT '',
  gap_from      bigint, -- the last rows that were removed, or lost in a restore, before it got them; null: none
  gap_to        bigint,
  CHECK ((gap_from IS NULL) = (gap_to IS NULL))
);

-- The followers that admins make.
CREATE TABLE webhooks (
  id              uuid PRIMARY KEY REFERENCES followers ON DELETE CASCADE,
  name            text NOT NULL UNIQUE,
  url             text NOT NULL,
  events          text[] NOT NULL, -- patterns of types
  state           text NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'PAUSED', 'FAILED')),
  secret          bytea NOT NULL, -- that signs, sealed
  previous_secret bytea, -- that signs as well until previous_until, sealed
  previous_until  timestamptz,
  created_at      timestamptz NOT NULL DEFAULT now(),
  created_by      text NOT NULL,
  revision        bigint NOT NULL DEFAULT 1, -- a delivery in progress notices each change
  CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
);
