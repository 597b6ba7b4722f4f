-- What a person in the console gives a command line: one of the person's sign-ins. The command line fetches it with a code, of
-- which only the SHA-256 is here. It has the epoch of the account and the session in which it was given, and ends with them.
CREATE TABLE authorization_codes (
  code_hash    bytea PRIMARY KEY,
  family       uuid NOT NULL, -- of the refresh tokens that it gives
  account_id   bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
  epoch        uuid NOT NULL,
  session_id   uuid NOT NULL,
  client_id    text NOT NULL,
  redirect_uri text NOT NULL,
  challenge    text NOT NULL, -- of PKCE, by S256
  scopes       text[] NOT NULL,
  expires_at   timestamptz NOT NULL,
  used_at      timestamptz -- the row stays for a while: a second use ends what the first one gave
);
CREATE INDEX authorization_codes_account ON authorization_codes (account_id);
CREATE INDEX authorization_codes_expires ON authorization_codes (expires_at);

-- An account has one at a time.
CREATE TABLE passcodes (
  account_id   bigint PRIMARY KEY REFERENCES accounts ON DELETE CASCADE,
  code_hash    bytea NOT NULL UNIQUE,
  epoch        uuid NOT NULL,
  session_id   uuid NOT NULL,
  scopes       text[] NOT NULL,
  expires_at   timestamptz NOT NULL
);

-- Sign-ins that a device waits for (RFC 8628). Epoch and session are those of the approval.
CREATE TABLE device_codes (
  code_hash    bytea PRIMARY KEY,
  user_hash    bytea NOT NULL UNIQUE, -- of the code that the person types
  client_id    text NOT NULL,
  scopes       text[] NOT NULL, -- that it asks for; none: all
  address      text NOT NULL, -- of the device
  network      text NOT NULL, -- of the address, for the limit
  created_at   timestamptz NOT NULL,
  expires_at   timestamptz NOT NULL,
  polled_at    timestamptz, -- last; null: not yet
  poll_seconds integer NOT NULL, -- that it waits between two polls
  looks        integer NOT NULL DEFAULT 0, -- how often its user code was typed
  state        text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'approved', 'denied')),
  account_id   bigint REFERENCES accounts ON DELETE CASCADE, -- that approved; null: none has
  epoch        uuid,
  session_id   uuid
);
CREATE INDEX device_codes_network ON device_codes (network, expires_at);
CREATE INDEX device_codes_account ON device_codes (account_id);
CREATE INDEX device_codes_expires ON device_codes (expires_at);
