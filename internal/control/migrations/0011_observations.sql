-- The key of the fingerprints of verifiers in the records of roles. It is encrypted.
CREATE TABLE fingerprint_keys (
  id  integer PRIMARY KEY CHECK (id = 1),
  key bytea NOT NULL
);

-- How a cluster was looked at last. Each stored look counts up, so that two replicas do not store the same.
CREATE TABLE observed_clusters (
  cluster_id uuid PRIMARY KEY REFERENCES clusters ON DELETE CASCADE,
  looks      bigint NOT NULL,
  verifiers  boolean NOT NULL, -- whether the administering role may read them
  since      timestamptz NOT NULL DEFAULT clock_timestamp() -- the first look
);

-- What is known of a role. Name to fingerprint are null for a role that only was seen in a session.
CREATE TABLE observations (
  cluster_id  uuid NOT NULL REFERENCES clusters ON DELETE CASCADE,
  role_oid    oid NOT NULL,
  name        bytea, attempt uuid, recorded bytea, fingerprint bytea, -- recorded: the fingerprint in its record; '': none
  outside     boolean NOT NULL DEFAULT false, -- the password was changed by SQL
  outside_at  timestamptz,
  good        bytea[] NOT NULL DEFAULT '{}', -- the last two fingerprints of passwords that were not changed by SQL
  last_seen   timestamptz,
  PRIMARY KEY (cluster_id, role_oid)
);
