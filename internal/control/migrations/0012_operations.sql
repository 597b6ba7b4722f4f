-- What is done to many database users at once, in the name of the account that asked for it. The ids are UUIDs of version 7,
-- so their order is that of the operations.
CREATE TABLE operations (
  id           uuid PRIMARY KEY,
  action       text NOT NULL,
  options      jsonb NOT NULL,
  account_guid text NOT NULL,
  account_name text NOT NULL,
  token        uuid, -- the personal access token that it was started with; null: another credential
  access_token uuid, -- the access token that it was started with; null: another credential
  epoch        uuid, -- of the account at the start: one that was signed out since, or made again, has another
  scopes       text[] NOT NULL, -- that the credential carried: the account may have more
  clusters     uuid[], -- the only ones that the token reaches; null: no limit
  request_id   text NOT NULL,
  address      text NOT NULL,
  state        text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failed', 'cancelled')),
  reason       text NOT NULL DEFAULT '', -- why it failed
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at     timestamptz -- when nothing of it was in progress any more; null: not yet
);
CREATE INDEX operations_account ON operations (account_guid, id);
CREATE INDEX operations_open ON operations (id) WHERE ended_at IS NULL;

-- The part of an operation in one cluster. It is one task, whose key is the id. The registration of the cluster may end.
CREATE TABLE operation_parts (
  id            uuid PRIMARY KEY,
  operation_id  uuid NOT NULL REFERENCES operations ON DELETE CASCADE,
  cluster_id    uuid NOT NULL,
  cluster_name  text NOT NULL,
  total         integer NOT NULL,
  done          integer NOT NULL DEFAULT 0,
  failed        integer NOT NULL DEFAULT 0,
  skipped       integer NOT NULL DEFAULT 0,
  progressed_at timestamptz NOT NULL DEFAULT clock_timestamp(), -- when an item of it last ended
  last_error    text NOT NULL DEFAULT '' -- why it does not go on; '': it does
);
CREATE INDEX operation_parts_operation ON operation_parts (operation_id);

-- One user of an operation, or one stored credential.
CREATE TABLE operation_items (
  operation_id uuid NOT NULL REFERENCES operations ON DELETE CASCADE,
  position     integer NOT NULL,
  part_id      uuid NOT NULL,
  name         text NOT NULL,
  role_oid     oid, -- null: not known, because the cluster did not answer, or it is a credential
  state        text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done', 'failed', 'skipped')),
  detail       text NOT NULL DEFAULT '', -- why it is failed or skipped, or is tried again
  tries        integer NOT NULL DEFAULT 0,
  begun_at     timestamptz, -- when it was tried first
  due          timestamptz NOT NULL DEFAULT clock_timestamp(), -- when it may be tried, or tried again
  claim        uuid, -- of the replica that is doing it
  PRIMARY KEY (operation_id, position)
);
CREATE INDEX operation_items_open ON operation_items (part_id, position) WHERE state IN ('pending', 'running');
