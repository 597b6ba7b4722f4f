-- What sets this installation apart from others that manage the same clusters. The records of leases name it. A restored
-- backup keeps it.
CREATE TABLE installation (
  id     uuid NOT NULL DEFAULT gen_random_uuid(),
  single boolean PRIMARY KEY DEFAULT true CHECK (single)
);
INSERT INTO installation DEFAULT VALUES;

-- A role whose comment was changed by SQL is still that of the lease.
ALTER TABLE leases ADD COLUMN role_oid oid; -- null: not known
-- The limit of an account counts its live leases in a cluster. Those that have ended are kept for days.
CREATE INDEX leases_live_account ON leases (account_guid, cluster_id) WHERE state <> 'ended';

-- When the lease was stored as the next one, before its role was made, by the clock of this database: from then on it lasts as
-- long as the clock of the cluster says, or longer.
ALTER TABLE credentials
  ADD COLUMN lease_since timestamptz,
  ADD COLUMN next_since timestamptz;
CREATE INDEX credentials_lease ON credentials (lease_id);
