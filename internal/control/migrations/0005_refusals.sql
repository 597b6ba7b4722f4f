-- Refusals that the audit log has of an account in the minute of the last one: those beyond a number are not recorded.
CREATE TABLE refusals (
  account text PRIMARY KEY,
  minute  timestamptz NOT NULL,
  count   integer NOT NULL
);
