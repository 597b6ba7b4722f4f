-- What is due at a time, and is done by whichever replica takes it first. What is to be done, and whether it still is, says
-- the row of another table that the key names.
CREATE TABLE tasks (
  kind       text NOT NULL,
  key        uuid NOT NULL,
  cluster_id uuid REFERENCES clusters ON DELETE CASCADE, -- in which it is done; null: in none
  due        timestamptz NOT NULL,
  claimed    timestamptz, -- until when a replica is doing it; null: none is
  failures   integer NOT NULL DEFAULT 0, -- in a row
  PRIMARY KEY (key, kind)
);
-- What is due is taken for each cluster by itself.
CREATE INDEX tasks_due ON tasks (coalesce(cluster_id, '00000000-0000-0000-0000-000000000000'), due);

-- Database users that end by themselves. The role's comment holds the same id, its end and for_role, so that a lease that is
-- missing here is found again. The ids are UUIDs of version 7, so their order is that of the leases.
CREATE TABLE leases (
  id             uuid PRIMARY KEY,
  cluster_id     uuid NOT NULL REFERENCES clusters ON DELETE CASCADE,
  username       text NOT NULL,
  for_role       text NOT NULL, -- whose rights it has
  account_guid   text, -- null: a credential's
  account_name   text NOT NULL DEFAULT '',
  credential     text, -- the name of the credential that it belongs to; null: none
  token          uuid, -- the token that it was made with; null: another credential
  note           text NOT NULL DEFAULT '',
  ttl            interval NOT NULL, -- that a renewal without one takes
  databases      text[] NOT NULL DEFAULT '{}', -- that it could connect to when it was made
  created_at     timestamptz NOT NULL, -- by the clock of the cluster, as are the next two
  expires_at     timestamptz NOT NULL,
  max_expires_at timestamptz NOT NULL,
  renewed_at     timestamptz,
  state          text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'ending', 'blocked', 'ended')),
  end_reason     text, -- null while it is active
  blocked_by     text[] NOT NULL DEFAULT '{}',
  ended_at       timestamptz,
  CHECK ((account_guid IS NULL) = (credential IS NOT NULL)),
  CHECK ((state = 'active') = (end_reason IS NULL)),
  CHECK ((state = 'ended') = (ended_at IS NOT NULL))
);
CREATE INDEX leases_live ON leases (cluster_id, username) WHERE state <> 'ended';
CREATE INDEX leases_account ON leases (account_guid, id);
CREATE INDEX leases_cluster ON leases (cluster_id, id);
CREATE INDEX leases_ended ON leases (ended_at) WHERE state = 'ended';

-- Named leases that are kept and replaced. Of each the password is stored, sealed; of nothing else.
CREATE TABLE credentials (
  id              uuid PRIMARY KEY,
  cluster_id      uuid NOT NULL REFERENCES clusters ON DELETE CASCADE,
  name            text NOT NULL,
  for_role        text NOT NULL,
  rotate_every    interval NOT NULL,
  overlap         interval NOT NULL,
  rotation_window jsonb, -- null: any time
  lease_id        uuid, -- the current one
  password        bytea, -- its password, sealed
  next_lease_id   uuid, -- the one that is being made, stored before its role is
  next_password   bytea, -- sealed
  rotated_at      timestamptz,
  rotates_at      timestamptz,
  last_error      text NOT NULL DEFAULT '',
  created_at      timestamptz NOT NULL DEFAULT now(),
  created_by      text NOT NULL,
  revision        bigint NOT NULL DEFAULT 1,
  UNIQUE (cluster_id, name),
  CHECK ((lease_id IS NULL) = (password IS NULL)),
  CHECK ((next_lease_id IS NULL) = (next_password IS NULL))
);

ALTER TABLE clusters
  ADD COLUMN lease_default_ttl interval NOT NULL DEFAULT '1h',
  ADD COLUMN lease_max_ttl interval NOT NULL DEFAULT '24h',
  ADD COLUMN lease_max_per_account integer NOT NULL DEFAULT 100;

-- A token may be limited to reading some credentials: <id of the cluster>/<name>. One that a sign-in gave can be renewed up
-- to a time, and is not among those that its account has made.
ALTER TABLE personal_tokens
  ADD COLUMN credentials text[], -- null: no such limit
  ADD COLUMN renewable_until timestamptz, -- null: made by its account, and not renewed
  ADD COLUMN epoch uuid; -- of the account when it signed in: the token ends when that changes; null: it does not
CREATE INDEX personal_tokens_expired ON personal_tokens (expires_at) WHERE renewable_until IS NOT NULL;
