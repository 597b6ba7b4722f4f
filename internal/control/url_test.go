package control

import "testing"

// Beyond loopback nobody but the server that is meant gets the password, unless the URL says so.
func TestURLBeyondLoopback(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]struct {
		tls, unverified bool
		auth            string
	}{
		"postgres://u@db.example.org/rolecall":                                       {true, false, "scram-sha-256"},
		"postgresql://u@192.0.2.1:5432/rolecall?pool_max_conns=20":                   {true, false, "scram-sha-256"},
		"postgres://u@127.0.0.1:5432,db.example.org:5433/rolecall":                   {true, false, "scram-sha-256"},
		"host=db.example.org user=u dbname=rolecall":                                 {true, false, "scram-sha-256"},
		"host=db.example.org user=u sslmode = disable":                               {false, true, "scram-sha-256"},
		"postgres://u@db.example.org/rolecall?sslmode=require":                       {true, true, "scram-sha-256"},
		"postgres://u@db.example.org/rolecall?sslmode=prefer&require_auth=md5":       {true, true, "md5"},
		"postgres://u@db.example.org/rolecall?require_auth=none&sslmode=verify-full": {true, false, "none"},
		"postgres://sslmode=disable@db.example.org/rolecall":                         {true, false, "scram-sha-256"},
		"postgres://u@127.0.0.1/rolecall?sslmode=disable":                            {false, false, ""},
		"postgres://u@[::1],localhost/rolecall?sslmode=disable":                      {false, false, ""},
		"postgres://u:a&sslmode=disable@db.example.org/rolecall":                     {true, false, "scram-sha-256"},
		"postgres://u:p@db.example.org/rolecall?application_name=a%26sslmode%3Db":    {true, false, "scram-sha-256"},
		"host=db.example.org user=u password='a sslmode=disable require_auth=none'":  {true, false, "scram-sha-256"},
		`host=db.example.org user=u password=a\ sslmode=disable`:                     {true, false, "scram-sha-256"},
		"host=/run/postgresql user=u":                                                {false, false, ""},
	} {
		config, err := parse(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		c := config.ConnConfig
		if (c.TLSConfig != nil) != want.tls || unverified(c) != want.unverified || c.RequireAuth != want.auth {
			t.Errorf("%s: TLS %t, unverified %t, require_auth %q; want %+v", url, c.TLSConfig != nil, unverified(c), c.RequireAuth,
				want)
		}
	}
}
