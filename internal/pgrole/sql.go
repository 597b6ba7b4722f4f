package pgrole

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// This is the one file that builds SQL by putting strings together. DDL takes no parameters, so names and literals are
// quoted here; everything else goes through parameters. Names that come out of a catalog are quoted as well, by
// PostgreSQL itself (quote_ident, regclass) or by ident.

// ident quotes a name. The name holds no NUL: PostgreSQL stores none, and checkIdentifier lets none in.
func ident(name string) string {
	return `"` + strings.ReplaceAll(strings.ReplaceAll(name, "\x00", ""), `"`, `""`) + `"`
}

// idents quotes a list of names.
func idents(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = ident(name)
	}
	return strings.Join(quoted, ", ")
}

// literal quotes a string, as an escape string constant if it has a backslash, so that the result does not depend on
// standard_conforming_strings.
func literal(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), `'`, `''`)
	if strings.Contains(s, `\`) {
		return ` E'` + strings.ReplaceAll(s, `\`, `\\`) + `'`
	}
	return `'` + s + `'`
}

// Only attributes that change are named: a plain CREATEROLE administrator may not even restate NOSUPERUSER.
func createRole(name, verifier string) string {
	return `CREATE ROLE ` + ident(name) + ` LOGIN PASSWORD ` + literal(verifier) + `;`
}

// createLease makes a role whose sessions act as another from their login on.
func createLease(name, verifier, validUntil, as string) string {
	return `CREATE ROLE ` + ident(name) + ` LOGIN PASSWORD ` + literal(verifier) + ` VALID UNTIL ` + literal(validUntil) +
		`; ALTER ROLE ` + ident(name) + ` SET role = ` + literal(as) + `;`
}

// lockRole locks the row of a role, as its change does, without changing it, and fails (division by zero) if the name means
// another role. A change that reads the row first and takes its time then, as a new password does, fails with XX000
// whenever SQL from elsewhere has changed the row in between.
func lockRole(u *User) string {
	return `ALTER ROLE ` + ident(u.Name) + `; ` + checkRole(u)
}

// checkRole fails (division by zero) if the name of a role means another one now, as the statement before it has found. It
// reads no table: to plan that costs more than the rest of most changes.
func checkRole(u *User) string {
	return `SELECT 1 / (` + roleOID(u.Name) + ` = ` + strconv.FormatUint(uint64(u.oid), 10) + `)::int;`
}

// roleOID is the OID of the role of a name; 0 if there is none.
func roleOID(name string) string { return `coalesce(to_regrole(` + literal(ident(name)) + `), 0)::oid` }

// selectUnprotected fails (division by zero) if a role ($4) is protected.
var selectUnprotected = `SELECT 1 / (SELECT count(*) FROM pg_roles r WHERE r.oid = $4 AND ` + protectedBy + ` IS NULL)::int`

// execute executes a prepared statement. Its parameters are SQL.
func execute(prepared string, parameters ...string) string {
	return `EXECUTE ` + ident(prepared) + `(` + strings.Join(parameters, `, `) + `);`
}

// arrayOf is an array of texts.
func arrayOf(texts []string, kind string) string {
	literals := make([]string, len(texts))
	for i, text := range texts {
		literals[i] = literal(text)
	}
	return `ARRAY[` + strings.Join(literals, `, `) + `]::` + kind + `[]`
}

// oidsOf is an array of the OIDs of roles.
func oidsOf(users []*User) string {
	list := make([]string, len(users))
	for i, u := range users {
		list[i] = strconv.FormatUint(uint64(u.oid), 10)
	}
	return `ARRAY[` + strings.Join(list, `, `) + `]::oid[]`
}

func selectOID(name string) string { return `SELECT ` + roleOID(name) }

func alterPassword(name, verifier string, login bool) string {
	if login {
		return `ALTER ROLE ` + ident(name) + ` LOGIN PASSWORD ` + literal(verifier) + `;`
	}
	return `ALTER ROLE ` + ident(name) + ` PASSWORD ` + literal(verifier) + `;`
}

func commentOnRole(name, comment string) string {
	return `COMMENT ON ROLE ` + ident(name) + ` IS ` + literal(comment) + `;`
}

func alterLogin(name string, login bool) string {
	if login {
		return `ALTER ROLE ` + ident(name) + ` LOGIN;`
	}
	return `ALTER ROLE ` + ident(name) + ` NOLOGIN;`
}

// alterLimits names only what is set; validUntil is 'infinity' for never, since PostgreSQL takes no NULL there.
func alterLimits(name string, validUntil *string, connectionLimit *int) string {
	if validUntil == nil && connectionLimit == nil {
		return ""
	}
	sql := `ALTER ROLE ` + ident(name)
	if validUntil != nil {
		sql += ` VALID UNTIL ` + literal(*validUntil)
	}
	if connectionLimit != nil {
		sql += ` CONNECTION LIMIT ` + strconv.Itoa(*connectionLimit)
	}
	return sql + `;`
}

func disableRole(name string) string {
	return `ALTER ROLE ` + ident(name) + ` NOLOGIN PASSWORD NULL;`
}

// alterOwnPassword is for the role that logged in, whatever role its settings have made it since.
func alterOwnPassword(verifier string) string {
	return `SET LOCAL ROLE NONE; ALTER ROLE CURRENT_USER PASSWORD ` + literal(verifier) + `;`
}

func dropRole(name string) string { return `DROP ROLE ` + ident(name) }

// dropRoleByOID is for a role with a name that no statement may have: PostgreSQL puts it into the statement.
func dropRoleByOID(u *User) string {
	return `DO ` + literal(`BEGIN EXECUTE format('DROP ROLE %I', (SELECT rolname FROM pg_roles WHERE oid = `+
		strconv.FormatUint(uint64(u.oid), 10)+`)); END`)
}

// dropRoles drops the roles, and fails the transaction (division by zero) if a name was reused concurrently: an oid of no
// role is written as itself, any other as the role's quoted name. A role that others have locked would delay the whole
// batch, so the wait for it is short. https://www.postgresql.org/docs/current/datatype-oid.html
func dropRoles(users []*User) string {
	names, gone := make([]string, len(users)), make([]string, len(users))
	for i, u := range users {
		oid := strconv.FormatUint(uint64(u.oid), 10)
		names[i], gone[i] = u.Name, oid+`::regrole::text = '`+oid+`'`
	}
	return `SET LOCAL lock_timeout = '50ms'; DROP ROLE ` + idents(names) + `; SELECT 1 / (` + strings.Join(gone, ` AND `) +
		`)::int;`
}

func setRole(name string) string { return `SET LOCAL ROLE ` + ident(name) }

// setRoleIn makes a user's sessions in a database begin as another role.
func setRoleIn(user, database, role string) string {
	return `ALTER ROLE ` + ident(user) + ` IN DATABASE ` + ident(database) + ` SET role = ` + literal(role)
}

func resetRoleIn(user, database string) string {
	return `ALTER ROLE ` + ident(user) + ` IN DATABASE ` + ident(database) + ` RESET role`
}

func setSessionRole(name string) string { return `SET ROLE ` + ident(name) }

func rollbackPrepared(gid string) string { return `ROLLBACK PREPARED ` + literal(gid) }

func grantMembership(role string) string { return `GRANT ` + ident(role) + ` TO CURRENT_USER` }

func revokeMembership(role string) string { return `REVOKE ` + ident(role) + ` FROM CURRENT_USER` }

func grantRole(role, member string) string { return `GRANT ` + ident(role) + ` TO ` + ident(member) }

// grantRoleToUse is for PostgreSQL 16 and later, where a membership need not give the privileges of the role: without the
// options that depends on the member and, if there is a membership already, on that.
func grantRoleToUse(role, member string) string {
	return grantRole(role, member) + ` WITH INHERIT TRUE, SET TRUE`
}

// inherits is true for a membership by which the member has the role's privileges without SET ROLE. Up to PostgreSQL 15 that
// is a property of the member, and the column does not exist.
func inherits(membership, member string) string {
	return `coalesce((to_jsonb(` + membership + `) ->> 'inherit_option')::bool, ` + member + `.rolinherit)`
}

func revokeRole(role, member string) string {
	return `REVOKE ` + ident(role) + ` FROM ` + ident(member)
}

// revokeRoleAsGrantor is for PostgreSQL 16 and later, where a membership belongs to the role that granted it.
func revokeRoleAsGrantor(role, member string) string {
	return revokeRole(role, member) + ` GRANTED BY CURRENT_USER`
}

// grantMembershipWith and revokeOwnMembership are for PostgreSQL 16 and later, where a membership says whether it
// inherits and whether it allows SET ROLE, and has a grantor.
func grantMembershipWith(role string, inherit, set bool) string {
	return grantMembership(role) + ` WITH INHERIT ` + strconv.FormatBool(inherit) + `, SET ` + strconv.FormatBool(set) +
		` GRANTED BY CURRENT_USER`
}

func revokeOwnMembership(role string) string {
	return revokeMembership(role) + ` GRANTED BY CURRENT_USER`
}

func reassignOwned(from, to string) string {
	return `REASSIGN OWNED BY ` + ident(from) + ` TO ` + ident(to)
}

func alterSchemaOwner(schema, owner string) string {
	return `ALTER SCHEMA ` + ident(schema) + ` OWNER TO ` + ident(owner) + `;`
}

// revoke takes privileges and a target that PostgreSQL has quoted, for instance `SELECT, UPDATE (a)` and `TABLE public.t`.
func revoke(privileges, target, grantee string) string {
	return `REVOKE ` + privileges + ` ON ` + target + ` FROM ` + ident(grantee) + ` RESTRICT`
}

// revokeDefault and grantDefault change what objects that owner will make are granted with. schema is quoted, or empty
// for all schemas; grantee is empty for PUBLIC.
func revokeDefault(owner, schema, objects, grantee string) string {
	return alterDefault(owner, schema) + `REVOKE ALL PRIVILEGES ON ` + objects + ` FROM ` + identOrPublic(grantee)
}

func grantDefault(owner, objects, privilege, grantee string) string {
	return alterDefault(owner, "") + `GRANT ` + privilege + ` ON ` + objects + ` TO ` + identOrPublic(grantee)
}

func alterDefault(owner, schema string) string {
	sql := `ALTER DEFAULT PRIVILEGES FOR ROLE ` + ident(owner) + ` `
	if schema != "" {
		sql += `IN SCHEMA ` + schema + ` `
	}
	return sql
}

func identOrPublic(grantee string) string {
	if grantee == "" {
		return `PUBLIC`
	}
	return ident(grantee)
}

func createDatabase(name string) string { return `CREATE DATABASE ` + ident(name) }

func createDatabaseOf(name, owner string) string {
	return createDatabase(name) + ` OWNER ` + ident(owner)
}

func closeDatabase(name string) string {
	return `REVOKE ALL ON DATABASE ` + ident(name) + ` FROM PUBLIC`
}

func alterSuperuser(name string) string { return `ALTER ROLE ` + ident(name) + ` SUPERUSER` }

func renameDatabase(name, to string) string {
	return `ALTER DATABASE ` + ident(name) + ` RENAME TO ` + ident(to)
}

func alterDatabaseOwner(name, owner string) string {
	return `ALTER DATABASE ` + ident(name) + ` OWNER TO ` + ident(owner)
}

func commentOnDatabase(name, comment string) string {
	return `COMMENT ON DATABASE ` + ident(name) + ` IS ` + literal(comment) + `;`
}

// grantOnDatabase takes a privilege as PostgreSQL names it.
func grantOnDatabase(privilege, name, to string, grantable bool) string {
	sql := `GRANT ` + privilege + ` ON DATABASE ` + ident(name) + ` TO ` + ident(to)
	if grantable {
		sql += ` WITH GRANT OPTION`
	}
	return sql
}

func dropDatabase(name string) string { return `DROP DATABASE ` + ident(name) }

func dropDatabaseIfExists(name string) string { return `DROP DATABASE IF EXISTS ` + ident(name) }

// likePattern makes a LIKE pattern of a glob.
func likePattern(glob string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`, `*`, `%`, `?`, `_`).Replace(glob)
}

// dangerous is true for a role that nobody may become by way of a password. $3 is the names of those that
// are known by name. A sub-select is evaluated once, current_user for each row.
func dangerous(role string) string {
	return `(` + dangerousItself(role) + `
    OR ` + role + `.rolname = ANY ($3::name[]) OR ` + role + `.rolname IN ((SELECT current_user), (SELECT session_user))
    OR ` + role + `.oid = ANY (ARRAY(` + selectReachingFiles + `)))`
}

// dangerousItself is true for a role that its attributes make dangerous.
func dangerousItself(role string) string {
	return role + `.rolsuper OR ` + role + `.rolreplication OR ` + role + `.rolbypassrls OR ` + role + `.rolcreaterole`
}

// selectReachingFiles finds the roles that reach the server's files or programs by a privilege of their own: EXECUTE on a
// function that does so, in any database, or SET or ALTER SYSTEM on a parameter that names a command, a library or a
// file.
var selectReachingFiles = privileged(
	`JOIN pg_proc f ON f.oid = d.objid AND f.proname = ANY ('{`+strings.Join(fileFunctions, ",")+`}'::name[])`,
	`JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) p ON p.identity = ANY ('{`+strings.Join(fileParameters, ",")+
		`}'::text[])`)

// privileged finds the roles that were granted functions of PostgreSQL itself, or parameters, restricted by joins with these
// dependencies d. pg_shdepend has all of them, by database, and as its index has it; OFFSET 0 keeps the planner to that. Up
// to PostgreSQL 14 there is no pg_parameter_acl, and nothing is found for a class that is NULL.
func privileged(functions, parameters string) string {
	return `
      SELECT d.refobjid FROM pg_database b, LATERAL (SELECT d.refobjid, d.objid FROM pg_shdepend d
        WHERE d.dbid = b.oid AND d.classid = 'pg_proc'::regclass AND d.objid < 16384 AND d.deptype = 'a' OFFSET 0) d
      ` + functions + `
      UNION ALL
      SELECT d.refobjid FROM pg_shdepend d ` + parameters + `
      WHERE d.dbid = 0 AND d.classid = to_regclass('pg_catalog.pg_parameter_acl') AND d.deptype = 'a'`
}

// fileFunctions are PostgreSQL's own functions that read or write files of the server. Nobody but a superuser may call them
// unless that was granted.
var fileFunctions = []string{"pg_read_file", "pg_read_binary_file", "lo_import", "lo_export"}

// fileParameters are those by which a role runs commands, loads libraries, lets itself in or writes files.
var fileParameters = []string{"allow_system_table_mods", "archive_cleanup_command", "archive_command", "archive_library",
	"config_file", "data_directory", "dynamic_library_path", "extension_control_path", "external_pid_file", "hba_file",
	"ident_file", "jit_provider", "local_preload_libraries", "log_directory", "log_filename", "oauth_validator_libraries",
	"primary_conninfo", "recovery_end_command", "restore_command", "session_preload_libraries", "shared_preload_libraries",
	"ssl_ca_file", "ssl_passphrase_command", "unix_socket_directories"}

// alwaysDangerous reach the server's files and programs, or are what a cloud has for a superuser.
var alwaysDangerous = []string{"pg_execute_server_program", "pg_read_server_files", "pg_write_server_files",
	"rds_superuser", "cloudsqlsuperuser", "alloydbsuperuser", "azure_pg_admin", "neon_superuser"}

// A role r is protected when it is dangerous, or its name is a system role's ($1 LIKE patterns, $2 names), or it is a
// member of a dangerous one by any path, inherited or not, because SET ROLE needs no inheritance. Most roles are members
// of none, which is looked up first, by index: an EXISTS would be planned as a scan of all memberships, and a join with
// those above, without OFFSET or LIMIT, as one of all memberships or roles. PostgreSQL's own roles are protected as well;
// scanUser adds them.
var (
	protectedItself = `(` + dangerous("r") + ` OR r.rolname = ANY ($2::name[]) OR r.rolname::text LIKE ANY ($1::text[]))`
	dangerousAbove  = above(dangerous("p"))
	protectedBy     = `CASE WHEN ` + protectedItself + ` THEN r.rolname WHEN ` + isMember + ` THEN ` + dangerousAbove + ` END`
	// IS NOT TRUE, and neither IS NULL nor NOT: the planner takes those for rare, or looks them up in the index of names, and
	// sorts all roles to find a page of them. A query that has it begins with withKnown.
	unprotected = "(r.rolname >= 'pg_' AND r.rolname < 'pg`') IS NOT TRUE AND NOT (" + dangerousItself("r") + `)
    AND (cardinality($1::text[]) > 0 AND r.rolname::text LIKE ANY ($1::text[])) IS NOT TRUE
    AND r.oid NOT IN (SELECT oid FROM known)
    AND CASE WHEN (SELECT bool_or(oid IS NULL) FROM groups) THEN true
      ELSE ` + isMember + ` IS NOT TRUE OR (` + above(dangerousOrRisky) + ` IS NOT NULL) IS NOT TRUE END`
)

// few is the OIDs that a query returns, of which the planner then expects few: of an array it expects ten elements, and of
// what lies between two values one in 200. Else, where one role is a member of thousands, it expects thousands at each step
// of a recursion. PostgreSQL makes a hash table of that size for each query, whether it is used or not: that took longer
// than the rest of a page of users, and PostgreSQL 19 ran out of memory.
func few(query, name string) string {
	return `(SELECT oid FROM unnest(ARRAY(` + query + `)) a(oid) WHERE oid BETWEEN '1' AND '4294967295') ` + name
}

// groupsOf is the roles g that a role is a member of.
func groupsOf(role string) string {
	return few(`SELECT roleid FROM pg_auth_members WHERE member = `+role, `g`)
}

// above is the name of a role p that role r is a member of by any path and for which the condition is true; else NULL.
func above(condition string) string {
	return `(
      WITH RECURSIVE up(oid) AS (
        SELECT g.oid FROM ` + groupsOf("r.oid") + `
        UNION
        SELECT g.oid FROM up CROSS JOIN LATERAL ` + groupsOf("up.oid") + `
      )
      SELECT p.rolname FROM up, LATERAL (
        SELECT p.rolname FROM pg_roles p WHERE p.oid = up.oid AND
          ` + condition + ` LIMIT 1) p ORDER BY p.rolname LIMIT 1)`
}

// dangerousOrRisky is dangerous("p") where withKnown has made risky.
var dangerousOrRisky = `(` + dangerousItself("p") + ` OR p.oid IN (SELECT oid FROM risky))`

// withKnown is what unprotected needs in a query that walks about this number of roles. known are the protected roles
// except those whose attributes or a pattern protect them: so each role that is walked is looked up in one hash, and not in
// lists of names and in the memberships. groups are the roles that have members, found by the index and followed by NULL;
// only from those that are dangerous the members are followed down. If there are too many groups, the list ends before its
// NULL, and unprotected looks up the memberships of each role: in PostgreSQL 16 and later a role that an administrator
// without SUPERUSER has made is a group, and the administrator its member.
func withKnown(walked string) string {
	return `
  WITH RECURSIVE risky(oid) AS MATERIALIZED (
    SELECT oid FROM pg_roles WHERE rolname = ANY ($3::name[])
    UNION ALL SELECT oid FROM pg_roles WHERE rolname = (SELECT current_user)
    UNION ALL SELECT oid FROM pg_roles WHERE rolname = (SELECT session_user)
    UNION ALL (` + selectReachingFiles + `)
  ), groups(oid, n) AS (
    (SELECT roleid, 1 FROM pg_auth_members ORDER BY roleid LIMIT 1)
    UNION ALL
    SELECT (SELECT m.roleid FROM pg_auth_members m WHERE m.roleid > g.oid ORDER BY m.roleid LIMIT 1), n + 1
    FROM groups g WHERE g.oid IS NOT NULL AND n < 8 + (` + walked + `) / 16
  ), below(oid) AS (
    SELECT oid FROM ` + few(`SELECT p.oid FROM groups g, LATERAL (SELECT p.oid FROM pg_roles p WHERE p.oid = g.oid
      AND `+dangerousOrRisky+` LIMIT 1) p`, `g`) + `
    UNION
    SELECT m.oid FROM below b CROSS JOIN LATERAL ` + few(`SELECT member FROM pg_auth_members WHERE roleid = b.oid`, `m`) + `
  ), known(oid) AS MATERIALIZED (
    SELECT oid FROM ` + few(`SELECT oid FROM risky UNION ALL SELECT oid FROM below
      UNION ALL SELECT oid FROM pg_roles WHERE rolname = ANY ($2::name[])`, `k`) + `
  )`
}

// isMember is true for a role r that is a member of any. Without the order, where most memberships are of one member, the
// planner takes it for quicker to read them until one is found, and reads all of them for each role that is in none.
const isMember = `(SELECT true FROM pg_auth_members m WHERE m.member = r.oid ORDER BY m.roleid LIMIT 1)`

// maxComment and maxListed are how many bytes are read of a comment, alone and in a list. Its writer may be any role with
// CREATEROLE, and may make it a gigabyte.
const (
	maxComment = 8192
	maxListed  = 2048
)

// commentUpTo is the comment d.description as bytes. Of a longer one it is the beginning and the end, where the record is.
// For that the server needs all of it in memory, so a comment of more than 64 KiB is not read: a few of 100 MB would keep
// the server busy for seconds. octet_length needs none of it.
func commentUpTo(limit int) string {
	return fmt.Sprintf(`
    CASE WHEN octet_length(d.description) <= %d THEN textsend(d.description)
      WHEN octet_length(d.description) > 65536 THEN textsend('This comment has ' || octet_length(d.description)
        || ' bytes and is not read.')
      ELSE substring(textsend(d.description) for %d) || '\x0a'::bytea
        || substring(textsend(d.description) from octet_length(textsend(d.description)) - %d) END`,
		limit, limit/4, limit/2)
}

// withComment joins roles r with their comments d, looked up for each role: left to itself the planner compares each role
// with all comments.
const withComment = `
  LEFT JOIN LATERAL
    (SELECT description FROM pg_shdescription WHERE objoid = r.oid AND classoid = 'pg_authid'::regclass LIMIT 1) d ON true`

// hidden is true for a user r without LOGIN. A comment that is longer than Rolecall writes is not searched.
const hidden = `(SELECT CASE WHEN octet_length(description) <= 8192 THEN
      description ~ '(^|\n)rolecall:v1 [^\n]*"state":"(deleting|disabled)"[^\n]*(\n(?!rolecall:v1 )[^\n]*)*$' END
    FROM pg_shdescription WHERE objoid = r.oid AND classoid = 'pg_authid'::regclass LIMIT 1)`

// recordOfGroup is the comment of role g as bytes, unless it is longer than Rolecall writes.
const recordOfGroup = `(SELECT textsend(description) FROM pg_shdescription
    WHERE objoid = g.oid AND classoid = 'pg_authid'::regclass AND octet_length(description) <= 8192)`

// leaseRecord is true for a comment d.description that may have the record of a lease. It is compared as bytes: a comment
// that was written in a database of another encoding need not be text.
const leaseRecord = `CASE WHEN octet_length(d.description) <= 8192
    THEN position('"lease":"'::bytea IN textsend(d.description)) > 0 ELSE false END`

// attributes make the revision of a role that has no record of ours in its comment.
const attributes = `concat_ws(',', r.oid, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin,
    r.rolreplication,
              r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil)`

// mayLogin is what limits the logins of role r beyond LOGIN.
const mayLogin = `coalesce(r.rolvaliduntil <= clock_timestamp(), false), r.rolvaliduntil, r.rolconnlimit`

// selectRoles reads the roles of the names $4, and selectRolesOfBytes those whose names are the bytes $4. A name that was
// given in a database of another encoding may have bytes that no statement here may have; namesend is what is listed of it.
var (
	selectRoles        = rolesWhere(`r.rolname = ANY ($4::name[])`)
	selectRolesOfBytes = rolesWhere(`namesend(r.rolname) = ANY ($4::bytea[])`)
	selectRolesOfOIDs  = rolesWhere(`r.oid = ANY ($4::oid[])`)
)

func rolesWhere(condition string) string {
	return `
  SELECT ` + columnsOfRole(maxComment, protectedBy) + `
  FROM pg_roles r` + withComment + `
  WHERE ` + condition
}

// columnsOfRole are what scanUserUpTo reads.
func columnsOfRole(comment int, protectedBy string) string {
	return `r.oid, r.rolname, r.rolcanlogin, ` + commentUpTo(comment) + `, ` + protectedBy + `, ` + attributes + `,
    ` + mayLogin
}

// selectRolesQuickly reads the roles of the names $1 in half the time of selectRoles, most of which PostgreSQL spends on
// setting up its parts. Of what protects a role it finds attributes only, and the administering role itself. The names that
// protect are left to the caller. A role for which the last column is true may be protected by what it is a member of or was
// granted: only selectRoles can tell.
var selectRolesQuickly = `
  SELECT ` + columnsOfRole(maxComment, `CASE WHEN `+dangerousItself("r")+` OR r.rolname IN (current_user, session_user)
    THEN r.rolname END`) + `,
    m.member IS NOT NULL OR r.oid = ANY (ARRAY(` + privileged(``, ``) + `))
  FROM pg_roles r` + withComment + `
  LEFT JOIN LATERAL (SELECT member FROM pg_auth_members WHERE member = r.oid ORDER BY roleid LIMIT 1) m ON true
  WHERE r.rolname = ANY ($1::name[])`

// selectUsers and selectAllUsers, which has protected ones too, read a page ($4 long, from $5 on) by walking the index of
// names: ordered by the text of a name, all roles would be sorted first. Those with After begin behind the name $5, and
// those with AfterBytes behind one that is not text, for which there is no index.
var (
	selectUsers         = usersPage(`$4::bigint + $5::bigint`, ``, `OFFSET $5`)
	selectAllUsers      = allUsersPage(``, `OFFSET $5`)
	selectUsersAfter    = usersPage(`$4::bigint`, ` AND r.rolname > $5::name`, ``)
	selectAllUsersAfter = allUsersPage(` AND r.rolname > $5::name`, ``)

	selectUsersAfterBytes    = usersPage(`$4::bigint`, ` AND namesend(r.rolname) > $5::bytea`, ``)
	selectAllUsersAfterBytes = allUsersPage(` AND namesend(r.rolname) > $5::bytea`, ``)
)

// countUsers counts the users that selectUsers lists.
var countUsers = withKnown(allWalked) + `
  SELECT count(*) FROM pg_roles r WHERE (r.rolcanlogin OR ` + hidden + `) AND ` + unprotected

// allWalked stands for the number of roles that a query walks, where it walks all.
const allWalked = `10000`

func usersPage(walked, filter, offset string) string {
	return withKnown(walked) + userRows(`NULL::name`, filter+` AND `+unprotected, offset)
}

func allUsersPage(filter, offset string) string { return userRows(protectedBy, filter, offset) }

func userRows(protectedBy, filter, offset string) string {
	return `
  SELECT ` + columnsOfRole(maxListed, protectedBy) + `
  FROM (
    SELECT r.* FROM pg_roles r
    WHERE (r.rolcanlogin OR ` + hidden + `)` + filter + `
    ORDER BY r.rolname LIMIT $4 ` + offset + `) r` + withComment + `
  ORDER BY r.rolname`
}

// searchPage reads up to $4 users that meet the conditions, as usersPage does.
func searchPage(system bool, conditions []string, order string) string {
	with, filter := withKnown(`$4::bigint`), ` AND `+unprotected
	if system { // the parameters are used, which have no type otherwise
		with, filter = ``, ` AND num_nulls($1::text[], $2::name[], $3::name[]) >= 0`
	}
	for _, condition := range conditions {
		filter += ` AND ` + condition
	}
	return with + `
  SELECT r.oid, r.rolname, ` + commentUpTo(maxListed) + `, (r.rolvaliduntil <= clock_timestamp()) IS TRUE,
    ` + shownValidUntil + `
  FROM (
    SELECT r.oid, r.rolname, r.rolvaliduntil FROM pg_roles r
    WHERE (r.rolcanlogin OR ` + hidden + `)` + filter + `
    ORDER BY ` + order + ` LIMIT $4) r` + withComment + `
  ORDER BY ` + order
}

// opaque hides a condition from the planner, which takes it for rare and sorts all roles to find a page of them.
func opaque(condition string) string { return `CASE WHEN ` + condition + ` THEN true END` }

// commentLike is true for a role r with a comment that is like one of the patterns of a parameter. Only a comment that is
// read is searched.
const commentLike = `(SELECT CASE WHEN octet_length(description) <= 65536 THEN textsend(description) LIKE ANY ($%d::bytea[])
      END FROM pg_shdescription WHERE objoid = r.oid AND classoid = 'pg_authid'::regclass LIMIT 1)`

// maxVerifier is more than the length of any verifier. Before PostgreSQL 18 a user can give itself one of a gigabyte.
const maxVerifier = "200"

// selectUserlist omits users whose password has expired: a pooler with open connections would let them in. It reads
// pg_authid alone: for a join with pg_roles, PostgreSQL compares each role with all others.
var selectUserlist = withKnown(allWalked) + `
  SELECT r.rolname::text, r.rolpassword
  FROM pg_authid r
  WHERE r.rolcanlogin AND octet_length(r.rolpassword) <= ` + maxVerifier + ` AND (r.rolvaliduntil > now()) IS NOT FALSE
    AND ` + unprotected + `
  ORDER BY r.rolname`

// selectPlaces lists the databases in which something depends on a role ($1), the shared objects as if they were in this
// one and a subscription in its own, and says whether the role owns something there, and whether there is more than
// privileges: what the role owns, unless that goes to another ($2), and what names it. A superuser needs no regard for
// connection limits. DROP DATABASE holds its lock on the database to the end.
const selectPlaces = `
  SELECT coalesce(db.datname, own.datname)::text, pg_encoding_to_char(coalesce(db.encoding, own.encoding))::text,
         coalesce(db.oid, own.oid) = own.oid,
         bool_or(d.deptype = 'o' AND d.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)),
         bool_or(d.deptype <> 'a' AND d.classid <> 'pg_default_acl'::regclass AND NOT ($2 AND d.deptype = 'o' AND d.classid
           <> 'pg_user_mapping'::regclass)),
         coalesce(db.datallowconn, true),
         CASE WHEN coalesce(db.datconnlimit, -1) = 0 AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN -1
              ELSE coalesce(db.datconnlimit, -1) END,
         EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass
           AND l.objid = coalesce(db.oid, own.oid) AND l.mode = 'AccessExclusiveLock' AND l.granted)
  FROM pg_shdepend d
  LEFT JOIN pg_subscription s ON d.classid = 'pg_subscription'::regclass AND s.oid = d.objid
  LEFT JOIN pg_database db ON db.oid = coalesce(s.subdbid, d.dbid)
  JOIN pg_database own ON own.datname = current_database()
  WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = $1
  GROUP BY 1, 2, 3, 6, 7, 8 ORDER BY 1`

// selectVisitors is how many databases to visit at the same time: $1 at most, and a quarter of the connections that are
// free, for others want some, too.
const selectVisitors = `
  SELECT greatest(1, least($1, (current_setting('max_connections')::int -
    current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true)::int, 0) - (SELECT sum(numbackends)::int FROM
      pg_stat_database)) / 4))`

// ofRole restricts pg_shdepend to one role ($1) in the current database, and for the registered one ($2) to shared
// objects as well. A subscription is a shared object that belongs to a database.
const ofRole = `
  d.refclassid = 'pg_authid'::regclass AND d.refobjid = $1
  AND CASE d.classid WHEN 'pg_subscription'::regclass
    THEN EXISTS (SELECT FROM pg_subscription s JOIN pg_database b ON b.oid = s.subdbid WHERE s.oid = d.objid AND
      b.datname = current_database())
    ELSE d.dbid IN ((SELECT oid FROM pg_database WHERE datname = current_database()), CASE WHEN $2 THEN 0 END) END`

// endsWithSession is true for a temporary object (of schema) of a role ($1) that has sessions in the database: it goes with
// them, and the deletion ends them. Without sessions it was left behind by one that crashed.
func endsWithSession(schema string) string {
	return `(coalesce(` + schema + ` ~ '^pg_(toast_)?temp_', false) AND EXISTS (
    SELECT FROM pg_stat_activity a WHERE a.usesysid = $1 AND a.datname = current_database()))`
}

// selectOwned lists what the role owns, shared objects apart, except what only configures it and what ends with its
// sessions.
var selectOwned = `
  SELECT count, shared, pg_describe_object(classid, objid, objsubid)
  FROM (
    SELECT d.classid, d.objid, d.objsubid, x.shared, count(*) OVER (PARTITION BY x.shared) AS count,
           row_number() OVER (PARTITION BY x.shared ORDER BY d.classid, d.objid) AS nth
    FROM pg_shdepend d, LATERAL (SELECT d.classid IN ('pg_database'::regclass, 'pg_tablespace'::regclass)) x (shared)
    WHERE ` + ofRole + ` AND d.deptype = 'o' AND d.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)
      AND NOT ` + endsWithSession(`(pg_identify_object(d.classid, d.objid, d.objsubid)).schema`) + `) found
  WHERE nth <= $3 ORDER BY shared, nth`

// selectDefiners lists what the role owns and what runs with its owner's rights: routines with SECURITY DEFINER, views
// (but for those with security_invoker, which came with PostgreSQL 15) and materialized views, when they are refreshed.
const selectDefiners = `
  SELECT count(*) OVER (), pg_describe_object(d.classid, d.objid, d.objsubid)
  FROM pg_shdepend d
  LEFT JOIN pg_proc f ON d.classid = 'pg_proc'::regclass AND f.oid = d.objid
  LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
  WHERE ` + ofRole + ` AND d.deptype = 'o' AND (f.prosecdef OR c.relkind IN ('v', 'm')
    AND NOT EXISTS (SELECT FROM pg_options_to_table(c.reloptions) WHERE option_name = 'security_invoker' AND
      option_value::bool))
  ORDER BY d.classid, d.objid LIMIT $3`

// selectNamed lists what names the role and is neither owned by it nor granted to it, with the statement that changes it:
// policies, initial privileges of extensions, user mappings.
const selectNamed = `
  SELECT count(*) OVER (), pg_describe_object(d.classid, d.objid, d.objsubid) || coalesce(' (' || CASE d.classid
      WHEN 'pg_user_mapping'::regclass THEN (
        SELECT format('DROP USER MAPPING FOR %I SERVER %I', m.usename,
	m.srvname) FROM pg_user_mappings m WHERE m.umid = d.objid)
      WHEN 'pg_policy'::regclass THEN (
        SELECT format('DROP POLICY %I ON %s', p.polname, p.polrelid::regclass) FROM pg_policy p WHERE p.oid = d.objid)
    END || ')', '')
  FROM pg_shdepend d
  WHERE ` + ofRole + ` AND (d.deptype IN ('r', 'i') OR d.classid = 'pg_user_mapping'::regclass)
  ORDER BY d.classid, d.objid LIMIT $3`

// selectGrants lists the privileges that the role was granted, by whom, and those that it granted on. A REVOKE acts for the
// owner if the grantor is a member of it or a superuser, else for the role with the most of the grant options that it needs
// among those of the grantor: the grantor itself, if it needs no others (select_best_grantor in acl.c). So each privilege is
// named, and the owner of what no REVOKE reaches. The catalog of privileges on parameters came with PostgreSQL 15.
func selectGrants(parameters bool) string {
	if !parameters {
		return grantsOf + grantsEnd
	}
	return grantsOf + `
    UNION ALL
    SELECT 'PARAMETER ' || (SELECT string_agg(quote_ident(part), '.' ORDER BY i) FROM regexp_split_to_table(o.parname, '\.')
      WITH ORDINALITY p(part, i)), 10, o.paracl, 0, true, ''
      FROM dep JOIN pg_parameter_acl o ON dep.classid = 'pg_parameter_acl'::regclass AND o.oid = dep.objid` + grantsEnd
}

const grantsOf = `
  WITH dep AS (SELECT DISTINCT d.classid, d.objid FROM pg_shdepend d WHERE ` + ofRole + ` AND d.deptype = 'a'),
  granted(target, owner, acl, schema, shared, col) AS (
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::regclass, c.relowner, c.relacl,
        c.relnamespace, false, ''
      FROM dep JOIN pg_class c ON dep.classid = 'pg_class'::regclass AND c.oid = dep.objid
    UNION ALL
    SELECT 'TABLE ' || c.oid::regclass, c.relowner, a.attacl, c.relnamespace, false, ' (' || quote_ident(a.attname) || ')'
      FROM dep JOIN pg_class c ON dep.classid = 'pg_class'::regclass AND c.oid = dep.objid
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attacl IS NOT NULL
    UNION ALL
    SELECT 'ROUTINE ' || o.oid::regprocedure, o.proowner, o.proacl, o.pronamespace, false, ''
      FROM dep JOIN pg_proc o ON dep.classid = 'pg_proc'::regclass AND o.oid = dep.objid
    UNION ALL
    SELECT 'SCHEMA ' || quote_ident(o.nspname), o.nspowner, o.nspacl, 0, false, ''
      FROM dep JOIN pg_namespace o ON dep.classid = 'pg_namespace'::regclass AND o.oid = dep.objid
    UNION ALL
    SELECT 'TYPE ' || quote_ident(n.nspname) || '.' || quote_ident(o.typname), o.typowner, o.typacl, o.typnamespace,
	false, ''
    -- regtype gives SQL's own names for some
      FROM dep JOIN pg_type o ON dep.classid = 'pg_type'::regclass AND o.oid = dep.objid
      JOIN pg_namespace n ON n.oid = o.typnamespace
    UNION ALL
    SELECT 'LANGUAGE ' || quote_ident(o.lanname), o.lanowner, o.lanacl, 0, false, ''
      FROM dep JOIN pg_language o ON dep.classid = 'pg_language'::regclass AND o.oid = dep.objid
    UNION ALL
    SELECT 'FOREIGN DATA WRAPPER ' || quote_ident(o.fdwname), o.fdwowner, o.fdwacl, 0, false, ''
      FROM dep JOIN pg_foreign_data_wrapper o ON dep.classid = 'pg_foreign_data_wrapper'::regclass AND o.oid = dep.objid
    UNION ALL
    SELECT 'FOREIGN SERVER ' || quote_ident(o.srvname), o.srvowner, o.srvacl, 0, false, ''
      FROM dep JOIN pg_foreign_server o ON dep.classid = 'pg_foreign_server'::regclass AND o.oid = dep.objid
    UNION ALL
    SELECT 'LARGE OBJECT ' || o.oid, o.lomowner, o.lomacl, 0, false, ''
      FROM dep JOIN pg_largeobject_metadata o ON dep.classid = 'pg_largeobject'::regclass AND o.oid = dep.objid
    UNION ALL
    SELECT 'DATABASE ' || quote_ident(o.datname), o.datdba, o.datacl, 0, true, ''
      FROM dep JOIN pg_database o ON dep.classid = 'pg_database'::regclass AND o.oid = dep.objid
    UNION ALL
    SELECT 'TABLESPACE ' || quote_ident(o.spcname), o.spcowner, o.spcacl, 0, true, ''
      FROM dep JOIN pg_tablespace o ON dep.classid = 'pg_tablespace'::regclass AND o.oid = dep.objid`

// dependsHere restricts pg_shdepend to a role ($1) in the current database, without shared objects.
const dependsHere = `d.refclassid = 'pg_authid'::regclass AND d.refobjid = $1
  AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())`

// selectGrantCounts counts what a role ($1) was granted itself, except what it owns anyway. Unlike selectGrants it names
// nothing, which takes the longest.
const selectGrantCounts = `
  WITH dep AS MATERIALIZED (
    SELECT DISTINCT d.classid, d.objid, d.objsubid FROM pg_shdepend d WHERE ` + dependsHere + ` AND d.deptype = 'a'),
  granted(kind, owner, acl) AS (
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, c.relowner, c.relacl
      FROM dep JOIN pg_class c ON c.oid = dep.objid WHERE dep.classid = 'pg_class'::regclass AND dep.objsubid = 0
    UNION ALL
    SELECT 'column', c.relowner, a.attacl FROM dep JOIN pg_class c ON c.oid = dep.objid
      JOIN pg_attribute a ON a.attrelid = dep.objid AND a.attnum = dep.objsubid
      WHERE dep.classid = 'pg_class'::regclass AND dep.objsubid <> 0
    UNION ALL
    SELECT 'function', o.proowner, o.proacl FROM dep JOIN pg_proc o ON o.oid = dep.objid
      WHERE dep.classid = 'pg_proc'::regclass
    UNION ALL
    SELECT 'schema', o.nspowner, o.nspacl FROM dep JOIN pg_namespace o ON o.oid = dep.objid
      WHERE dep.classid = 'pg_namespace'::regclass
    UNION ALL
    SELECT 'type', o.typowner, o.typacl FROM dep JOIN pg_type o ON o.oid = dep.objid WHERE dep.classid = 'pg_type'::regclass
    UNION ALL
    SELECT 'language', o.lanowner, o.lanacl FROM dep JOIN pg_language o ON o.oid = dep.objid
      WHERE dep.classid = 'pg_language'::regclass
    UNION ALL
    SELECT 'foreign data wrapper', o.fdwowner, o.fdwacl FROM dep JOIN pg_foreign_data_wrapper o ON o.oid = dep.objid
      WHERE dep.classid = 'pg_foreign_data_wrapper'::regclass
    UNION ALL
    SELECT 'foreign server', o.srvowner, o.srvacl FROM dep JOIN pg_foreign_server o ON o.oid = dep.objid
      WHERE dep.classid = 'pg_foreign_server'::regclass
    UNION ALL
    SELECT 'large object', o.lomowner, o.lomacl FROM dep JOIN pg_largeobject_metadata o ON o.oid = dep.objid
      WHERE dep.classid = 'pg_largeobject'::regclass)
  SELECT g.kind, x.privilege, count(*) FROM granted g, LATERAL (
    SELECT DISTINCT x.privilege_type FROM aclexplode(g.acl) x WHERE x.grantee = $1) x (privilege)
  WHERE g.owner <> $1 GROUP BY 1, 2`

// selectDefaultCounts counts the default privileges of a role ($1), of all owners and schemas.
const selectDefaultCounts = `
  SELECT 'default privileges on ' || CASE a.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences'
      WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' ELSE 'large objects' END,
    x.privilege_type, count(DISTINCT a.oid)
  FROM (SELECT DISTINCT d.objid FROM pg_shdepend d WHERE ` + dependsHere + ` AND d.classid = 'pg_default_acl'::regclass) dep
  JOIN pg_default_acl a ON a.oid = dep.objid CROSS JOIN aclexplode(a.defaclacl) x
  WHERE x.grantee = $1 AND a.defaclrole <> $1 GROUP BY 1, 2`

// selectOwnedCounts counts what a role ($1) owns. pg_identify_object would take a second for some ten thousand objects.
const selectOwnedCounts = `
  SELECT CASE d.classid
      WHEN 'pg_class'::regclass THEN CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END
      WHEN 'pg_proc'::regclass THEN 'function' WHEN 'pg_namespace'::regclass THEN 'schema'
      WHEN 'pg_type'::regclass THEN 'type' WHEN 'pg_largeobject'::regclass THEN 'large object'
      ELSE (pg_identify_object(d.classid, d.objid, 0)).type END, 'OWNER', count(*)
  FROM pg_shdepend d LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
  WHERE ` + dependsHere + ` AND d.deptype = 'o' AND d.classid NOT IN ('pg_default_acl'::regclass,
	'pg_user_mapping'::regclass)
  GROUP BY 1`

const grantsEnd = `
  ), item(target, grantor, grantee, by, shared, owner, temporary, privilege) AS (
    SELECT g.target, x.grantor, CASE WHEN x.grantor = $1 THEN x.grantee ELSE $1 END, x.grantor = $1, g.shared, g.owner,
      coalesce(n.nspname ~ '^pg_(toast_)?temp_', false), x.privilege_type || g.col
    FROM granted g CROSS JOIN aclexplode(g.acl) x LEFT JOIN pg_namespace n ON n.oid = g.schema
    WHERE g.owner <> $1 AND (x.grantee = $1 OR x.grantor = $1)
  )
  SELECT target, string_agg(DISTINCT privilege, ', ' ORDER BY privilege), pg_get_userbyid(grantor)::text,
    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, by, shared,
    CASE WHEN temporary OR grantor <> owner AND pg_has_role(grantor, owner, 'USAGE') THEN pg_get_userbyid(owner)::text END,
    CASE WHEN temporary THEN array(
      SELECT a.pid FROM pg_stat_activity a WHERE a.usesysid = owner AND a.datname = current_database()
        AND a.pid <> pg_backend_pid() ORDER BY 1) END
  FROM item GROUP BY target, grantor, grantee, by, shared, owner, temporary
  ORDER BY 1, 3`

const selectDefaults = `
  SELECT pg_get_userbyid(a.defaclrole)::text, coalesce(quote_ident(n.nspname), ''), a.defaclobjtype::text,
         CASE WHEN a.defaclrole = $1
           THEN array(SELECT DISTINCT CASE x.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(x.grantee)::text END FROM
             aclexplode(a.defaclacl) x)
           ELSE ARRAY[pg_get_userbyid($1)::text]
         END, a.defaclrole = $1
  FROM (SELECT DISTINCT d.objid FROM pg_shdepend d WHERE ` + ofRole + ` AND d.classid = 'pg_default_acl'::regclass) dep
  JOIN pg_default_acl a ON a.oid = dep.objid
  LEFT JOIN pg_namespace n ON n.oid = a.defaclnamespace
  ORDER BY 1, 2, 3`

// setTimeouts bounds the statements of a transaction that may take longer than others.
func setTimeouts(statement, lock time.Duration) string {
	return fmt.Sprintf(`SET LOCAL statement_timeout = %d; SET LOCAL lock_timeout = %d`, statement.Milliseconds(),
		lock.Milliseconds())
}

// createGroup makes a role that others become members of.
func createGroup(name string) string { return `CREATE ROLE ` + ident(name) + ` NOLOGIN` }

// grantTo takes privileges as PostgreSQL names them and a target that is quoted.
func grantTo(privileges, target string, grantees []string) string {
	return `GRANT ` + privileges + ` ON ` + target + ` TO ` + idents(grantees)
}

func grantToPublic(privilege, target string) string {
	return `GRANT ` + privilege + ` ON ` + target + ` TO PUBLIC`
}

func revokeFromPublic(privilege, target string) string {
	return `REVOKE ` + privilege + ` ON ` + target + ` FROM PUBLIC`
}

func targetDatabase(name string) string { return `DATABASE ` + ident(name) }

func targetSchema(name string) string { return `SCHEMA ` + ident(name) }

func targetAll(objects, schema string) string {
	return `ALL ` + objects + ` IN SCHEMA ` + ident(schema)
}

// grantDefaultTo is for what owner will make, in one schema or, if that is "", in all.
func grantDefaultTo(owner, schema, privileges, objects string, grantees []string) string {
	if schema != "" {
		schema = ident(schema)
	}
	return alterDefault(owner, schema) + grantTo(privileges, objects, grantees)
}

// wants is what access roles are to be granted: a kind of object, the place of a level, a privilege, and the bit that stands
// for it. The queries about access roles have it as $2 to $5, and as $1 the oids of the roles in the order of Levels. An oid
// that no role has stands for a role that is to be made.
const wants = `unnest($2::text[], $3::int[], $4::text[], $5::int[]) w (kind, level, privilege, bit)`

// lacking is what the access roles lack in an ACL of a kind of object, as bits: a column for each level.
func lacking(kind, acl string) string {
	columns := make([]string, len(Levels))
	for i := range Levels {
		level := strconv.Itoa(i + 1)
		columns[i] = `coalesce((SELECT bit_or(w.bit) FROM ` + wants + ` WHERE w.kind = '` + kind + `' AND w.level = ` + level + `
      AND NOT EXISTS (SELECT FROM aclexplode(` + acl + `) x
        WHERE x.grantee = ($1::oid[])[` + level + `] AND x.privilege_type = w.privilege)), 0)`
	}
	return strings.Join(columns, `,
    `)
}

// selectFormer says whether none of the roles $1 has CONNECT on the database $2, though they have members ($3), or depend on
// something else. What the administering role has not finished does not count.
const selectFormer = `
  SELECT NOT EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x
      WHERE x.grantee = ANY ($1::oid[]) AND x.privilege_type = 'CONNECT')
    AND ($3 OR EXISTS (SELECT FROM pg_shdepend dep
      LEFT JOIN pg_database o ON o.oid = CASE WHEN dep.classid = 'pg_database'::regclass THEN dep.objid ELSE dep.dbid END
      WHERE dep.refclassid = 'pg_authid'::regclass AND dep.refobjid = ANY ($1::oid[])
        AND dep.classid <> 'pg_auth_members'::regclass AND o.oid IS DISTINCT FROM d.oid
        AND (starts_with(o.datname::text,
	'` + unfinishedPrefix + `') AND pg_get_userbyid(o.datdba) = current_user) IS NOT TRUE))
  FROM pg_database d WHERE d.datname = $2`

// selectDatabaseLacks is about the database $6: its owner, what the access roles lack, what PUBLIC was granted by the owner
// and by others, and whether the administering role may connect only because PUBLIC may.
var selectDatabaseLacks = `
  SELECT pg_get_userbyid(d.datdba)::text, current_user::text,
    EXISTS (SELECT FROM aclexplode(a.acl) x WHERE x.grantee = 0 AND x.grantor = d.datdba AND x.privilege_type = 'CONNECT'),
    EXISTS (SELECT FROM aclexplode(a.acl) x WHERE x.grantee = 0 AND x.grantor <> d.datdba AND x.privilege_type = 'CONNECT'),
    NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND NOT EXISTS (
      SELECT FROM aclexplode(a.acl) x JOIN pg_roles r ON r.oid = x.grantee
      WHERE x.privilege_type = 'CONNECT' AND pg_has_role(r.oid, 'USAGE')),
    ` + lacking("d", "a.acl") + `
  FROM pg_database d, LATERAL (SELECT coalesce(d.datacl, acldefault('d', d.datdba))) a (acl) WHERE d.datname = $6`

// selectLosers lists users that may connect to the database $2 only because PUBLIC may, $3 at most and those with sessions
// first, and how many there are. Members of the roles $1 are to be granted CONNECT.
const selectLosers = `
  SELECT r.rolname::text,
    EXISTS (SELECT FROM pg_stat_activity s WHERE s.usesysid = r.oid AND s.datname = $2) connected, (count(*) OVER ())::int
  FROM pg_roles r WHERE r.rolcanlogin AND NOT r.rolsuper AND r.rolname <> current_user
    AND NOT EXISTS (SELECT FROM unnest($1::oid[]) g (oid) WHERE pg_has_role(r.oid, g.oid, 'USAGE'))
    AND NOT EXISTS (SELECT FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x
      WHERE d.datname = $2 AND x.privilege_type = 'CONNECT' AND x.grantee <> 0 AND pg_has_role(r.oid, x.grantee, 'USAGE'))
  ORDER BY connected DESC, r.rolname LIMIT $3`

// selectSchemaLacks lists the schemas of the connection's database except PostgreSQL's own, with their owners, whether they
// belong to an extension, what PUBLIC was granted, and what the access roles lack.
var selectSchemaLacks = `
  SELECT n.oid, n.nspname::text, pg_get_userbyid(n.nspowner)::text,
    ` + ofExtension("pg_namespace", "n.oid") + `,
    coalesce((SELECT bit_or(w.bit) FROM ` + wants + ` JOIN aclexplode(a.acl) x ON x.grantee = 0
      AND x.privilege_type = w.privilege WHERE w.kind = 'n'), 0),
    EXISTS (SELECT FROM aclexplode(a.acl) x WHERE x.grantee = 0 AND x.grantor = n.nspowner AND x.privilege_type = 'CREATE'),
    ` + lacking("n", "a.acl") + `
  FROM pg_namespace n, LATERAL (SELECT coalesce(n.nspacl, acldefault('n', n.nspowner))) a (acl)
  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  ORDER BY n.nspname`

// ofExtension is true for an object that an extension has made, and decides the privileges of.
func ofExtension(class, oid string) string {
	return `EXISTS (SELECT FROM pg_depend e WHERE e.classid = '` + class + `'::regclass AND e.objid = ` + oid + `
      AND e.deptype = 'e')`
}

// grantableKinds are the kinds of relations that GRANT … ON TABLE takes, and sequences.
const grantableKinds = `('r', 'p', 'v', 'm', 'f', 'S')`

// selectOwners lists who owns something in the schemas $1 that no extension has made, whether there are tables or sequences
// among it, and whether there is more than the schema public.
var selectOwners = `
  SELECT o.owner, pg_get_userbyid(o.owner)::text, bool_or(o.relation), bool_or(o.makes)
  FROM (
    SELECT DISTINCT c.relowner, true, true FROM pg_class c WHERE c.relnamespace = ANY ($1::oid[])
      AND c.relkind IN ` + grantableKinds + ` AND NOT ` + ofExtension("pg_class", "c.oid") + `
    UNION ALL
    SELECT DISTINCT p.proowner, false, true FROM pg_proc p WHERE p.pronamespace = ANY ($1::oid[])
      AND NOT ` + ofExtension("pg_proc", "p.oid") + `
    UNION ALL
    SELECT n.nspowner, false, n.nspname <> 'public' FROM pg_namespace n WHERE n.oid = ANY ($1::oid[])
  ) o (owner, relation, makes) GROUP BY 1 ORDER BY 2`

// ofCatalog are the views of superusers on system catalogs, their foreign tables on the server's files, and their views on
// these: who may use them does it with the rights of their owner, and may change the catalogs by them, or read verifiers.
// pg_depend does not have the catalogs, whose OIDs are below 16384.
const ofCatalog = `of_catalog (oid) AS (
    SELECT c.oid FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner AND o.rolsuper JOIN pg_rewrite w ON w.ev_class = c.oid
    WHERE c.oid >= 16384 AND c.relkind IN ('v', 'm')
      AND w.ev_action::text ~ ':relid ([1-9][0-9]{0,3}|1[0-5][0-9]{3}|16[0-2][0-9]{2}|163[0-7][0-9]|1638[0-3]) '
    UNION
    SELECT c.oid FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner AND o.rolsuper
    JOIN pg_foreign_table f ON f.ftrelid = c.oid JOIN pg_foreign_server s ON s.oid = f.ftserver
    JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw AND w.fdwname = 'file_fdw'
    UNION
    SELECT c.oid FROM of_catalog f
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = f.oid AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class c ON c.oid = w.ev_class AND c.relkind IN ('v', 'm')
    JOIN pg_roles o ON o.oid = c.relowner AND o.rolsuper
  )`

// selectRelationLacks lists what the access roles lack on the tables and sequences in the schemas $6. The target is NULL if
// one statement for the whole schema says the same: all have one owner, unless the administering role is a superuser ($8),
// and none belongs to an extension or is a superuser's view on catalogs. For owners other than $7 nothing can be granted:
// their objects are only counted, unless PUBLIC has the privilege.
var selectRelationLacks = `
  WITH RECURSIVE ` + ofCatalog + `, relation AS MATERIALIZED (
    SELECT c.oid, c.relnamespace, c.relowner, k.kind, $8 OR (c.relowner = ANY ($7::oid[])) IS TRUE AS granted_by_owner,
      coalesce(c.relacl, acldefault(k.acl_kind, c.relowner)) AS acl, ` + ofExtension("pg_class", "c.oid") + `
        OR c.oid IN (SELECT oid FROM of_catalog) AS extension
    FROM pg_class c, LATERAL (SELECT CASE c.relkind WHEN 'S' THEN 'S' ELSE 'r' END,
      CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char") k (kind, acl_kind)
    WHERE c.relnamespace = ANY ($6::oid[]) AND c.relkind IN ` + grantableKinds + `
  ), granted AS MATERIALIZED (
    SELECT r.oid, x.grantee, x.privilege_type AS privilege FROM relation r, aclexplode(r.acl) x
    WHERE x.grantee = ANY ($1::oid[]) OR x.grantee = 0 AND NOT r.granted_by_owner
  ), uniform AS (
    SELECT relnamespace, kind, ($8 OR count(DISTINCT relowner) = 1) AND NOT bool_or(extension) AS yes
    FROM relation GROUP BY 1, 2
  ), lack AS (
    SELECT r.oid, r.relnamespace, r.relowner, r.kind, r.granted_by_owner, w.level, w.bit
    FROM relation r JOIN ` + wants + ` ON w.kind = r.kind
    WHERE NOT r.extension AND NOT EXISTS (
      SELECT FROM granted g WHERE g.oid = r.oid AND g.privilege = w.privilege AND g.grantee = ($1::oid[])[w.level])
      AND (r.granted_by_owner OR NOT EXISTS (
        SELECT FROM granted g WHERE g.oid = r.oid AND g.privilege = w.privilege AND g.grantee = 0))
  )
  SELECT n.nspname::text, l.kind, CASE WHEN $8 THEN '' ELSE pg_get_userbyid(l.relowner)::text END, l.granted_by_owner,
    CASE WHEN l.granted_by_owner AND NOT u.yes THEN l.oid::regclass::text END, count(DISTINCT l.oid)::int,
    coalesce(bit_or(l.bit) FILTER (WHERE l.level = 1), 0), coalesce(bit_or(l.bit) FILTER (WHERE l.level = 2), 0),
    coalesce(bit_or(l.bit) FILTER (WHERE l.level = 3), 0)
  FROM lack l JOIN uniform u USING (relnamespace, kind) JOIN pg_namespace n ON n.oid = l.relnamespace
  GROUP BY 1, 2, 3, 4, 5 ORDER BY 3, 1, 2 DESC, 5`

// selectDefaultLacks lists what the access roles lack in the default privileges of the owners $6, whose names are $7, in the
// schemas $8; the schema 0 stands for all. The owner of the access role of own needs none for it.
var selectDefaultLacks = `
  SELECT o.name, coalesce(n.nspname, '')::text, w.kind,
    coalesce(bit_or(w.bit) FILTER (WHERE w.level = 1), 0), coalesce(bit_or(w.bit) FILTER (WHERE w.level = 2), 0),
    coalesce(bit_or(w.bit) FILTER (WHERE w.level = 3), 0)
  FROM unnest($6::oid[], $7::text[]) o (oid, name) CROSS JOIN unnest($8::oid[]) s (oid)
  LEFT JOIN pg_namespace n ON n.oid = s.oid
  JOIN ` + wants + ` ON w.kind IN ('r', 'S', 'f', 'T') OR w.kind = 'n' AND s.oid = 0
  WHERE o.oid <> ($1::oid[])[w.level] AND NOT EXISTS (
    SELECT FROM pg_default_acl a, aclexplode(a.defaclacl) x
    WHERE a.defaclrole = o.oid AND a.defaclnamespace IN (0, s.oid) AND a.defaclobjtype = w.kind::"char"
      AND x.grantee = ($1::oid[])[w.level] AND x.privilege_type = w.privilege)
  GROUP BY 1, 2, 3 ORDER BY 1, 2, 3`
