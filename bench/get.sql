\set n random(1, :count)
SELECT oid, rolname, rolcanlogin FROM pg_roles WHERE rolname = ('user_' || :n)::name;
