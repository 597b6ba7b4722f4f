\set n random(1, :count)
SELECT oid, rolname, rolcanlogin, (SELECT description FROM pg_shdescription WHERE objoid = r.oid AND classoid = 'pg_authid'::regclass)
FROM pg_roles r WHERE rolname = ('user_' || :n)::name;
