package cli

import (
	"fmt"
	"regexp"
	"strings"

	"rolecall/internal/client"
)

// psqlScript writes statements as a script for psql, which ends at the first error. "" for none.
func psqlScript(statements []client.Statement) (string, error) {
	if len(statements) == 0 {
		return "", nil
	}
	var b strings.Builder
	b.WriteString("\\set ON_ERROR_STOP on\n")
	for i, s := range statements {
		if i == 0 || s.Database != statements[i-1].Database {
			command, err := psqlConnect(s.Database)
			if err != nil {
				return "", err
			}
			b.WriteString(command + "\n")
		}
		b.WriteString(strings.TrimSuffix(s.SQL, ";") + ";\n")
	}
	return b.String(), nil
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_.]+$`)

// psqlConnect connects to another database with the same host and role. psql reads a name that has a = or :// as a whole
// connection string, so such a name is written within one, as pg_dump does it (appendPsqlMetaConnect).
func psqlConnect(database string) (string, error) {
	if plainName.MatchString(database) {
		return `\connect "` + database + `"`, nil
	}
	if strings.ContainsAny(database, "\n\r") {
		return "", fmt.Errorf("the name %q contains a line break, which psql cannot connect to; use -o json", database)
	}
	value := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(database)
	return `\connect -reuse-previous=on "` + strings.ReplaceAll("dbname='"+value+"'", `"`, `""`) + `"`, nil
}
