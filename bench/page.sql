\set n random(1, :count)
SELECT oid, rolname, rolcanlogin FROM pg_roles WHERE rolcanlogin AND rolname > ('user_' || :n)::name ORDER BY rolname LIMIT 100;
