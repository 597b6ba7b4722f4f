-- Labels that an issuer sets by the claims of its tokens, by key: the name of the issuer. All other labels are set by admins.
ALTER TABLE accounts ADD COLUMN label_sources jsonb NOT NULL DEFAULT '{}';

-- When the last token was issued that an account has labels of: an older one changes none. It is not in the account's row,
-- whose every change makes another ETag.
CREATE TABLE label_times (
  account_id bigint PRIMARY KEY REFERENCES accounts ON DELETE CASCADE,
  issued_at  timestamptz NOT NULL
);
