ALTER TABLE clusters
  -- The setting of Rolecall's sessions in the cluster; null: the server's own. A COMMIT that is local does not wait for a
  -- synchronous standby, which may be dead.
  ADD COLUMN synchronous_commit text CHECK (synchronous_commit IN ('local', 'remote_write', 'on', 'remote_apply')),
  -- When an admin last said that the cluster of another system identifier has taken this one's place; null: never.
  ADD COLUMN identified_at timestamptz;
