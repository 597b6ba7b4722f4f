-- What an OAuth client is called, and how many seconds its tokens are valid; 0: as long as those of other clients.
ALTER TABLE accounts
  ADD COLUMN client_name      text NOT NULL DEFAULT '',
  ADD COLUMN access_validity  integer NOT NULL DEFAULT 0,
  ADD COLUMN refresh_validity integer NOT NULL DEFAULT 0;
