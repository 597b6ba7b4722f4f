-- What accounts could still use when they were offboarded, and what became of it. A report stays when its account is deleted.
-- The ids are UUIDs of version 7, so their order is that of the offboardings.
CREATE TABLE offboardings (
  id           uuid PRIMARY KEY,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  account_guid text NOT NULL,
  account_name text NOT NULL,
  by_guid      text NOT NULL, -- the admin
  by_name      text NOT NULL,
  users        integer NOT NULL, -- how many the report has
  operation    uuid, -- that does to them what the report says; null: nothing is done to them
  report       jsonb NOT NULL
);
CREATE INDEX offboardings_account ON offboardings (account_guid, id);
