SELECT oid, rolname, rolcanlogin FROM pg_roles WHERE rolcanlogin ORDER BY rolname LIMIT 100;
