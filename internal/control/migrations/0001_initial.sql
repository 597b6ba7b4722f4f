-- One identity of the platform, a person or a program, with two facets. The identity signs in; the platform user has
-- labels and annotations. Either may be missing, not both.
CREATE TABLE accounts (
  id                   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  guid                 text NOT NULL UNIQUE CHECK (char_length(guid) BETWEEN 1 AND 200),
  username             text, -- null for a platform user known by its guid alone, and for a program
  origin               text, -- 'uaa': the password is kept here; else the name of the identity provider
  issuer               text, -- of an external account, which is known by issuer and subject, never by its name
  subject              text,
  scopes               text[] NOT NULL DEFAULT '{}',
  -- Tokens carry the epoch of their account and die with it, so a guid that is made again does not revive them.
  epoch                uuid NOT NULL DEFAULT gen_random_uuid(),

  -- The identity; identity_created_at is null when there is none.
  identity_created_at  timestamptz,
  identity_updated_at  timestamptz,
  identity_version     integer NOT NULL DEFAULT 0,
  program              boolean NOT NULL DEFAULT false, -- an OAuth client; its guid is its client id
  password_hash        text, -- argon2id in PHC form, of the password or client secret; null: cannot sign in with one
  password_changed_at  timestamptz,
  active               boolean NOT NULL DEFAULT true,
  verified             boolean NOT NULL DEFAULT true,
  given_name           text NOT NULL DEFAULT '',
  family_name          text NOT NULL DEFAULT '',
  emails               text[] NOT NULL DEFAULT '{}', -- the primary one first
  grant_types          text[] NOT NULL DEFAULT '{}', -- of a program: the OAuth grants that it may use
  user_scopes          text[] NOT NULL DEFAULT '{}', -- of a program: what a user's token may carry through it

  -- The platform user; platform_created_at is null when there is none.
  platform_created_at  timestamptz,
  platform_updated_at  timestamptz,
  revision             bigint NOT NULL DEFAULT 1,
  presentation_name    text, -- null: derived from username or guid
  labels               jsonb NOT NULL DEFAULT '{}',
  annotations          jsonb NOT NULL DEFAULT '{}'
);
CREATE UNIQUE INDEX accounts_username_origin ON accounts (lower(username), origin) WHERE username IS NOT NULL;
CREATE UNIQUE INDEX accounts_issuer_subject ON accounts (issuer, subject) WHERE issuer IS NOT NULL;
CREATE INDEX accounts_labels ON accounts USING gin (labels);
CREATE INDEX accounts_platform ON accounts (id) WHERE platform_created_at IS NOT NULL;
CREATE INDEX accounts_platform_created ON accounts (platform_created_at, guid) INCLUDE (id) WHERE platform_created_at IS NOT NULL;
CREATE INDEX accounts_platform_updated ON accounts (platform_updated_at, guid) INCLUDE (id) WHERE platform_created_at IS NOT NULL;

-- Deletions of platform users, which clients of that API poll. They are done when the row is made.
CREATE TABLE jobs (
  guid       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  operation  text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX jobs_created ON jobs (created_at);

-- Refresh tokens, by their SHA-256. Those of one sign-in are a family, which ends as a whole when a token that was
-- replaced is used again.
CREATE TABLE refresh_tokens (
  token_hash  bytea PRIMARY KEY,
  family      uuid NOT NULL,
  account_id  bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
  epoch       uuid NOT NULL,
  client_id   text NOT NULL,
  scopes      text[] NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  expires_at  timestamptz NOT NULL,
  replaced_at timestamptz
);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_account ON refresh_tokens (account_id);
CREATE INDEX refresh_tokens_expires ON refresh_tokens (expires_at);

-- Personal access tokens, by their SHA-256. They stay when the password changes, and are deleted with either facet of
-- their account and when it is made inactive.
CREATE TABLE personal_tokens (
  id           uuid PRIMARY KEY,
  account_id   bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
  name         text NOT NULL,
  secret_hash  bytea NOT NULL,
  scopes       text[] NOT NULL, -- of whoever made it; the account's own may be fewer by now
  read_only    boolean NOT NULL,
  clusters     uuid[], -- the only ones that it reaches; null: no limit
  created_at   timestamptz NOT NULL DEFAULT now(),
  expires_at   timestamptz, -- null: never
  last_used_at timestamptz, -- up to a minute late
  UNIQUE (account_id, name)
);

-- Keys that sign tokens. All that are stored verify; which one signs goes by their age: a key is published for an hour
-- before it signs, and is deleted when the last token that it may have signed has expired.
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
  pending           bytea,            -- the next password, sealed, from before the cluster is told of it until it counts
  system_identifier text NOT NULL,
  capabilities      jsonb NOT NULL DEFAULT '{}', -- what the administering role can do, as the last probe found it
  system_roles      text[] NOT NULL DEFAULT '{postgres,admin,standby}',
  member_of         text[] NOT NULL DEFAULT '{}', -- roles that a new user is made a member of
  grantable         text[] NOT NULL DEFAULT '{}', -- roles that a user may be made a member of
  manage            text[] NOT NULL DEFAULT '{}', -- label selectors, any of which suffices
  view              text[] NOT NULL DEFAULT '{}',
  revision          bigint NOT NULL DEFAULT 1,
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

-- The one exception is the retention, which says so within its transaction.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND current_setting('rolecall.retention', true) = 'on' THEN
    RETURN NULL;
  END IF;
  RAISE EXCEPTION 'rows of % are only ever added', TG_TABLE_NAME;
END
$$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The rows that the sealer has not seen yet. A row enters in the transaction that records it, so that the sealer needs
-- to know neither gaps in the ids nor who has yet to commit.
CREATE TABLE audit_unsealed (
  audit_id bigint PRIMARY KEY
);
CREATE FUNCTION audit_to_seal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit_unsealed VALUES (NEW.id);
  RETURN NULL;
END
$$;
CREATE TRIGGER audit_to_seal AFTER INSERT ON audit FOR EACH ROW EXECUTE FUNCTION audit_to_seal();

-- The keys of the chain; the newest seals. They outlive the master key that they are sealed with.
CREATE TABLE audit_keys (
  id         integer PRIMARY KEY,
  key        bytea NOT NULL, -- sealed
  created_at timestamptz NOT NULL DEFAULT now()
);

-- The order of the log, without gaps, and its HMAC chain. The columns behind mac are copies of the row's, so that one
-- index gives a filter and the order, off the path of requests; verifying compares them. Names are cut to what fits
-- into an index.
CREATE TABLE audit_seals (
  seq          bigint PRIMARY KEY,
  audit_id     bigint NOT NULL UNIQUE,
  key_id       integer NOT NULL REFERENCES audit_keys,
  version      smallint NOT NULL, -- of the encoding that mac covers
  mac          bytea NOT NULL,
  time         timestamptz NOT NULL,
  action       text NOT NULL,
  outcome      text,
  account_guid text NOT NULL,
  account_name text NOT NULL,
  cluster_id   uuid,
  target       text NOT NULL
);
CREATE INDEX audit_seals_time ON audit_seals (time, seq);
CREATE INDEX audit_seals_action ON audit_seals (action, seq);
CREATE INDEX audit_seals_outcome ON audit_seals (outcome, seq) WHERE outcome IS NOT NULL;
CREATE INDEX audit_seals_account_guid ON audit_seals (account_guid, seq);
CREATE INDEX audit_seals_account_name ON audit_seals (lower(account_name), seq);
CREATE INDEX audit_seals_cluster ON audit_seals (cluster_id, seq) WHERE cluster_id IS NOT NULL;
CREATE INDEX audit_seals_target ON audit_seals (target, seq);
CREATE TRIGGER audit_seals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_seals
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What the retention has left of the rows that it removed: the chain begins behind it. One row, or none.
CREATE TABLE audit_checkpoint (
  one    boolean PRIMARY KEY DEFAULT true CHECK (one),
  seq    bigint NOT NULL, -- also the number of rows that were ever removed
  mac    bytea NOT NULL,  -- of the last row that was removed
  time   timestamptz NOT NULL,
  key_id integer NOT NULL REFERENCES audit_keys,
  proof  bytea NOT NULL   -- HMAC of the above: nobody else can say where the chain begins
);

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
