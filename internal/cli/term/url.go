package term

import (
	"net/url"
	"strings"
)

// CheckDatabaseURL rejects what is not the URL of a PostgreSQL server, and a URL that holds a password: every process of the
// machine can read the arguments of the others. instead says how to give the password. The error never quotes the URL.
func CheckDatabaseURL(flag, value, instead string) error {
	u, err := url.Parse(value)
	var query url.Values
	if err == nil {
		query, err = url.ParseQuery(u.RawQuery) // the driver reads on after an error, and would find a password there
	}
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Fragment != "" {
		return Usage("--%s is not a URL like postgres://user@host:5432/database", flag)
	}
	_, has := u.User.Password()
	for key := range query {
		key = strings.TrimSpace(key) // as the driver does
		has = has || key == "password" || key == "sslpassword"
	}
	if has {
		return Usage("--%s contains a password, which every process of the machine can read; %s", flag, instead)
	}
	return nil
}
