-- One identity of the platform, a person or a program.
CREATE TABLE accounts (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  guid          text NOT NULL UNIQUE CHECK (char_length(guid) BETWEEN 1 AND 200),
  username      text NOT NULL,
  origin        text NOT NULL DEFAULT 'uaa',
  password_hash text, -- argon2id in PHC form; null: cannot sign in with a password
  active        boolean NOT NULL DEFAULT true,
  scopes        text[] NOT NULL DEFAULT '{}',
  labels        jsonb NOT NULL DEFAULT '{}',
  -- Tokens carry the epoch of their account and die with it, so a guid that is made again does not revive them.
  epoch         uuid NOT NULL DEFAULT gen_random_uuid(),
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX accounts_username_origin ON accounts (lower(username), origin);

-- Keys that sign tokens. The newest active one signs; all that are stored verify.
CREATE TABLE signing_keys (
  kid         text PRIMARY KEY,
  private_key bytea NOT NULL, -- PKCS #8, sealed
  created_at  timestamptz NOT NULL DEFAULT now()
);

-- Managed PostgreSQL clusters. Nothing of their roles is stored here.
CREATE TABLE clusters (
  id                uuid PRIMARY KEY,
  display_name      text NOT NULL UNIQUE,
  location          text NOT NULL DEFAULT 'local',
  url               text NOT NULL,    -- without a password
  tls               jsonb NOT NULL,   -- mode, and ca and cert in PEM
  credential        bytea NOT NULL,   -- password and client key of the administering role, sealed
  system_identifier text NOT NULL,
  system_roles      text[] NOT NULL DEFAULT '{postgres,admin,standby}',
  manage            text[] NOT NULL DEFAULT '{}', -- label selectors, any of which suffices
  view              text[] NOT NULL DEFAULT '{}',
  created_by        text NOT NULL DEFAULT '',
  created_at        timestamptz NOT NULL DEFAULT now(),
  updated_at        timestamptz NOT NULL DEFAULT now()
);

-- Replicas hear at once of every change of the registry.
CREATE FUNCTION notify_clusters() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('rolecall_clusters', '');
  RETURN NULL;
END
$$;
CREATE TRIGGER clusters_changed AFTER INSERT OR UPDATE OR DELETE ON clusters
  FOR EACH STATEMENT EXECUTE FUNCTION notify_clusters();

-- Who tried what, and what came of it. Rows are only ever added: an attempt before anything is done, an outcome after.
CREATE TABLE audit (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  attempt       uuid NOT NULL,
  phase         text NOT NULL CHECK (phase IN ('attempt', 'outcome')),
  time          timestamptz NOT NULL DEFAULT clock_timestamp(),
  action        text NOT NULL,
  outcome       text CHECK (outcome IN ('done', 'not_done', 'unknown', 'denied')),
  account_guid  text NOT NULL,
  account_name  text NOT NULL,
  cluster_id    uuid,
  target        text NOT NULL DEFAULT '',
  request_id    text NOT NULL DEFAULT '',
  address       text NOT NULL DEFAULT '',
  detail        jsonb NOT NULL DEFAULT '{}',
  -- An attempt without an outcome after this time was cut off, and is settled by looking at the cluster.
  settle_after  timestamptz,
  CHECK ((phase = 'outcome') = (outcome IS NOT NULL)),
  UNIQUE (attempt, phase)
);
CREATE INDEX audit_settle ON audit (settle_after) WHERE phase = 'attempt';
CREATE INDEX audit_target ON audit (cluster_id, target, id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'rows of % are only ever added', TG_TABLE_NAME;
END
$$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Failed sign-ins, counted: guesses come by the thousand. Names that no account has are counted as "unknown": people
-- type passwords into the name field.
CREATE TABLE failed_sign_ins (
  account text NOT NULL,
  address text NOT NULL,
  minute  timestamptz NOT NULL,
  count   integer NOT NULL,
  PRIMARY KEY (minute, account, address)
);

-- How far repeated work has come.
CREATE TABLE watermarks (
  name text PRIMARY KEY,
  time timestamptz NOT NULL
);
