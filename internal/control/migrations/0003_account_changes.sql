-- The sum of n is another one after every change that lists of platform users can show, so a list of the same sum is
-- still right. Whoever changes accounts takes a row that nobody else has taken, or adds one: nobody waits. The steps are
-- random because a failover may lose the last of them, and other changes must not lead to the same sum.
CREATE TABLE account_changes (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  n  bigint NOT NULL
);
CREATE FUNCTION account_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  step bigint := 1 + floor(random() * 1e9);
BEGIN
  UPDATE rolecall.account_changes SET n = n + step
  WHERE id = (SELECT id FROM rolecall.account_changes LIMIT 1 FOR UPDATE SKIP LOCKED);
  IF NOT FOUND THEN
    INSERT INTO rolecall.account_changes (n) VALUES (step);
  END IF;
  RETURN NULL;
END
$$;
-- The columns are those that lists filter and order by.
CREATE TRIGGER accounts_changed AFTER INSERT OR DELETE OR TRUNCATE
  OR UPDATE OF guid, username, origin, labels, platform_created_at, platform_updated_at ON accounts
  FOR EACH STATEMENT EXECUTE FUNCTION account_changed();
