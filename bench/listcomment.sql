SELECT oid, rolname, rolcanlogin, (SELECT description FROM pg_shdescription WHERE objoid = r.oid AND classoid = 'pg_authid'::regclass)
FROM pg_roles r WHERE rolcanlogin ORDER BY rolname LIMIT 100;
