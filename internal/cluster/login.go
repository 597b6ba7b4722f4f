package cluster

import (
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Login is where a database user connects to.
type Login struct {
	Host string // the first one
	Port int
	URL  string // with all hosts and without a password
}

// LoginAs says how to connect as a user: by the URL that the cluster was registered with, and to a database that the user
// may connect to, rather the one of the name of the role that it acts as, rather any than postgres.
func (c *Cluster) LoginAs(name, as string, databases []string) Login {
	registered, err := url.Parse(c.Connection.URL)
	if err != nil {
		panic("a registered URL: " + err.Error())
	}
	hosts := strings.Split(registered.Host, ",")
	for i, host := range hosts {
		if _, _, err := net.SplitHostPort(host); err != nil {
			hosts[i] = host + ":5432"
		}
	}
	to := url.URL{Scheme: "postgresql", User: url.User(name), Host: strings.Join(hosts, ","), Path: "/"}
	for i, database := range databases {
		if database == as || i == 0 || to.Path == "/postgres" {
			to.Path = "/" + database
		}
		if database == as {
			break
		}
	}
	query := url.Values{}
	if c.Connection.TLS.Mode == "" {
		query.Set("sslmode", "verify-full")
	} else if c.Connection.TLS.Mode != "disable" {
		query.Set("sslmode", c.Connection.TLS.Mode)
	}
	if len(hosts) > 1 {
		query.Set("target_session_attrs", "read-write")
	}
	to.RawQuery = query.Encode()
	host, portText, _ := net.SplitHostPort(hosts[0])
	port, _ := strconv.Atoi(portText) // the registry accepts no other
	return Login{Host: host, Port: port, URL: to.String()}
}
