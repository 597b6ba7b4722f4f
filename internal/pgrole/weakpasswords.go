package pgrole

import (
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/pgwire"
	"rolecall/internal/scram"
)

// PasswordProblem is a user whose password is not what the server would make of a new one.
type PasswordProblem struct {
	Name       string
	System     bool
	Kind       string // PasswordMD5, PasswordNone, PasswordSCRAM, or PasswordUnknown for what no password fits
	Iterations int    // of a SCRAM verifier; else 0
	Problem    string // in a sentence
}

// selectPasswordProblems compares with the setting that PostgreSQL has since 16; before, with what is built in, $4. The
// verifier is looked up for each role: left to itself the planner compares each role with all others.
var (
	selectPasswordProblems      = passwordProblemsWhere(`r.rolname > $5::name`)
	selectPasswordProblemsBytes = passwordProblemsWhere(`namesend(r.rolname) > $5::bytea`) // behind a name that is not text
)

func passwordProblemsWhere(condition string) string {
	return withKnown(allWalked) + `
	SELECT r.rolname, (` + unprotected + `) IS NOT TRUE, k.kind, k.iterations, k.wanted
	FROM pg_roles r, LATERAL (SELECT a.rolpassword FROM pg_authid a WHERE a.oid = r.oid LIMIT 1) a,
	LATERAL (SELECT ` + passwordKind + `, coalesce(substring(CASE WHEN octet_length(a.rolpassword) <= ` + maxVerifier + `
	                  THEN a.rolpassword END from '^SCRAM-SHA-256\$(\d{1,18}):')::bigint, 0),
	                coalesce(current_setting('scram_iterations', true)::int, $4::int)) k(kind, iterations, wanted)
	WHERE r.rolcanlogin AND (k.kind <> 'scram-sha-256' OR k.iterations < k.wanted) AND ` + condition + `
	  AND ($7::bool OR (` + unprotected + `))
	ORDER BY r.rolname LIMIT $6`
}

// PasswordProblems returns users with such passwords, with system protected ones too, in the order of their names' bytes:
// up to limit of those after a name, "" for the first. Users that Rolecall has disabled are no problem. It needs an
// administering role that may read pg_authid.
func (s *Server) PasswordProblems(ctx context.Context, system bool, after string,
	limit int) (problems []PasswordProblem, more bool, err error) {
	if after != "" && !nameable(after) {
		return nil, false, fault.New(fault.Malformed, "No page of users with password problems begins there.")
	}
	sql, begin := selectPasswordProblems, any(after)
	if !utf8.ValidString(after) {
		sql, begin = selectPasswordProblemsBytes, []byte(after)
	}
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, sql, s.protection(scram.DefaultIterations, begin, limit+1, system)...)
		if err != nil {
			return err
		}
		problems, err = collectPage(rows, limit+1, scanPasswordProblem)
		return verifiersHidden(err)
	})
	if err != nil {
		return nil, false, err
	}
	if more = len(problems) > limit; more {
		problems = problems[:limit]
	}
	return problems, more, nil
}

func scanPasswordProblem(row pgx.CollectableRow) (p PasswordProblem, err error) {
	var wanted int
	if err := row.Scan(&p.Name, &p.System, &p.Kind, &p.Iterations, &wanted); err != nil {
		return p, err
	}
	if max(len(p.Name), len(p.Kind)) > maxColumn {
		return p, pgwire.Refuse("it shows a role that is longer than a role can be")
	}
	switch p.Kind {
	case PasswordNone:
		p.Problem = "It has no password, and logs in only where pg_hba.conf asks for none."
	case PasswordMD5:
		p.Problem = "It is stored as an md5 hash, which PostgreSQL gives up and which is lost when the role is renamed. Set a " +
			"new password."
	case PasswordSCRAM:
		p.Problem = fmt.Sprintf("Its verifier has %d iterations, new ones have %d. Set a new password.", p.Iterations, wanted)
	default:
		p.Problem = "What is stored is neither a SCRAM verifier nor an md5 hash, and no password fits it. Set a new password."
	}
	return p, nil
}
