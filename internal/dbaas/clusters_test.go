package dbaas_test

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/dbaas"
	"rolecall/internal/pgrole"
	"rolecall/internal/servicetest"
)

type clusterResource struct {
	Type, ID   string
	Metadata   struct{ State, CreatedBy, CreatedDate, LastModifiedDate string }
	Properties struct {
		DisplayName, Location, PostgresVersion, DNSName string
		Instances                                       int
	}
}

type clusterList struct {
	Type, ID      string
	Items         []clusterResource
	Offset, Limit int
	Links         links
}

func TestClusters(t *testing.T) {
	f := newFixture(t)
	ids := map[string]string{}
	for _, name := range []string{"Zeta B", "Zeta a", "zeta é", "Zeta%"} {
		ids[name] = f.register(t, name, f.PG)
	}
	get := func(query string) (l clusterList, names []string) {
		t.Helper()
		f.want(t, 200, "GET", "/clusters"+query, "").Into(t, &l)
		for _, c := range l.Items {
			names = append(names, c.Properties.DisplayName)
		}
		return l, names
	}
	for query, want := range map[string][]string{
		"?filter.name=zETA":               {"Zeta B", "Zeta a", "Zeta%", "zeta é"},
		"?filter.name=ta%20":              {"Zeta B", "Zeta a", "zeta é"},
		"?filter.name=zeta%25":            {"Zeta%"},
		"?filter.name=%C3%89":             {"zeta é"},
		"?filter.name=zeta&limit=2":       {"Zeta B", "Zeta a"},
		"?filter.name=zeta&offset=3":      {"zeta é"},
		"?filter.name=zeta&offset=4":      nil,
		"?filter.name=there+is+none&x=yz": nil,
	} {
		if _, names := get(query); !slices.Equal(names, want) {
			t.Errorf("%s: got %q, want %q", query, names, want)
		}
	}
	base := servicetest.PublicURL + dbaas.Prefix + "/clusters?filter.name=zeta&limit=2&offset="
	if l, _ := get("?filter.name=zeta&limit=2&offset=1"); l.Links != (links{base + "0", base + "1", base + "3"}) ||
		l.Type != "collection" || l.Limit != 2 || l.Offset != 1 {
		t.Errorf("got %+v", l)
	}
	if _, all := get("?filter.name="); !slices.Contains(all, "main") || !slices.Contains(all, "zeta é") {
		t.Errorf("an empty filter leaves %q", all)
	}
	for query, code := range map[string]string{
		"limit=0": "paas-validation-1", "offset=-1": "paas-validation-1", "limit=x": "paas-parse-1",
		"filter.name=a&filter.name=b": "paas-parse-1",
	} {
		f.refuses(t, code, "GET", "/clusters?"+query, "")
	}

	var c clusterResource
	f.want(t, 200, "GET", "/clusters/"+ids["Zeta a"], "").Into(t, &c)
	p := c.Properties
	if c.Type != "cluster" || c.ID != ids["Zeta a"] || c.Metadata.State != "AVAILABLE" || p.DisplayName != "Zeta a" ||
		p.Location != "de/fra" ||
		p.PostgresVersion != strconv.Itoa(f.PG.Major) || p.Instances != 1 || p.DNSName != "127.0.0.1" ||
		!strings.HasSuffix(c.Metadata.CreatedDate, "Z") || !strings.HasSuffix(c.Metadata.LastModifiedDate, "Z") {
		t.Errorf("got %+v", c)
	}
	f.want(t, 200, "GET", "/clusters/"+strings.ToUpper(ids["Zeta a"]), "")

	// A name in the place of the id is answered with the id, to those who may view the cluster.
	f.Account(t, "zeta-stranger", []string{"cloud_controller.read", "cloud_controller.write"}, nil)
	for _, path := range []string{"", "/users", "/users/x", "/databases", "/backups"} {
		path = "/clusters/Zeta%20B" + path
		if said := f.refuses(t, "paas-notfound-1", "GET", path, ""); !strings.Contains(said, "Use its id, "+ids["Zeta B"]+".") {
			t.Errorf("GET %s: %s", path, said)
		}
		stranger := f.as(t, "zeta-stranger", "GET", path, "")
		if said := stranger.refused(t, "paas-notfound-1"); said != `There is no cluster "Zeta B".` {
			t.Errorf("GET %s without access: %s", path, said)
		}
	}
	if said := f.refuses(t, "paas-notfound-1", "DELETE", "/clusters/Zeta%20B/users/x", ""); !strings.Contains(said,
		ids["Zeta B"]) {
		t.Errorf("DELETE: %s", said)
	}
}

func TestVersions(t *testing.T) {
	f := newFixture(t)
	versions := func(path string) (names []string) {
		var v struct{ Data []struct{ Name string } }
		f.want(t, 200, "GET", path, "").Into(t, &v)
		for _, d := range v.Data {
			names = append(names, d.Name)
		}
		return names
	}
	for _, path := range []string{"/versions", "/clusters/postgresversions"} {
		if got := versions(path); !slices.Equal(got, pgrole.Majors) {
			t.Errorf("%s: %q", path, got)
		}
	}
	for _, path := range []string{"/versions", "/postgresversions"} {
		if got := versions("/clusters/" + f.ClusterID + path); !slices.Equal(got, []string{strconv.Itoa(f.PG.Major)}) {
			t.Errorf("of the cluster, %s: %q", path, got)
		}
	}
	type version struct{ Name, SwaggerURL string }
	var one version
	var all []version
	f.want(t, 200, "GET", "/infos/version", "").Into(t, &one)
	f.want(t, 200, "GET", "/infos/versions", "").Into(t, &all)
	if one.SwaggerURL != servicetest.PublicURL+"/openapi/dbaas.yaml" || !slices.Equal(all, []version{one}) {
		t.Errorf("got %+v and %+v", one, all)
	}
}

// What clients of this API know and Rolecall does not offer is said so, in the envelope.
func TestNotOffered(t *testing.T) {
	f := newFixture(t)
	cluster := "/clusters/" + f.ClusterID
	for request, code := range map[string]string{
		"POST /clusters":                           "paas-method-1",
		"PATCH " + cluster:                         "paas-method-1",
		"DELETE " + cluster:                        "paas-method-1",
		"POST " + cluster + "/restore":             "paas-notfound-1",
		"POST " + cluster + "/backups":             "paas-method-1",
		"GET /clusters/backups/b1":                 "paas-notfound-1",
		"PATCH " + cluster + "/databases/postgres": "paas-method-1",
		"PUT " + cluster + "/users/postgres":       "paas-method-1",
	} {
		method, path, _ := strings.Cut(request, " ")
		f.refuses(t, code, method, path, `{"properties":{}}`)
	}
	f.want(t, 200, "GET", cluster, "")
}

// A cluster whose host swallows everything holds up the list of all clusters for the time of one look, not longer.
func TestDeadCluster(t *testing.T) {
	t.Parallel()
	f := fixtureOn(t, ownService(t), 10_000)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, name := range []string{"dead 1", "dead 2", "dead 3", "dead 4", "dead 5", "dead 6"} {
		err := f.Clusters.Ensure(t.Context(), &cluster.Cluster{
			ID:          uuid.New(),
			DisplayName: name,
			Connection: cluster.Connection{URL: "postgres://role@" + silent.Addr().String() + "/postgres", Password: "x",
				TLS: cluster.TLS{Mode: "disable"}},
		}, audit.Entry{})
		if err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	states := func() (states []string) {
		var l clusterList
		f.want(t, 200, "GET", "/clusters", "").Into(t, &l)
		for _, c := range l.Items {
			states = append(states, c.Properties.DisplayName+" "+c.Metadata.State)
		}
		return states
	}
	want := []string{"dead 1 UNKNOWN", "dead 2 UNKNOWN", "dead 3 UNKNOWN", "dead 4 UNKNOWN", "dead 5 UNKNOWN",
		"dead 6 UNKNOWN", "main AVAILABLE"}
	if got := states(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	first := time.Since(start)
	// One look takes 3 s: those at six clusters, one after the other, would be 18.
	if first > 15*time.Second {
		t.Errorf("the list took %s", first)
	}
	start = time.Now()
	if got := states(); !slices.Equal(got, want) || time.Since(start) > first/2 {
		t.Errorf("the first list took %s, the second one %s: %q", first, time.Since(start), got)
	}
}

// ionosctl lists backups and logs.
func TestBackupsAndLogs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, path := range []string{"/clusters/backups", "/clusters/" + f.ClusterID + "/backups"} {
		var l struct {
			Type  string
			Items []struct{}
			Limit int
			Links links
		}
		f.want(t, 200, "GET", path+"?limit=7&offset=7", "").Into(t, &l)
		if l.Type != "collection" || l.Items == nil || len(l.Items) != 0 || l.Limit != 7 ||
			l.Links.Self != servicetest.PublicURL+dbaas.Prefix+path+"?limit=7&offset=7" || l.Links.Prev == "" || l.Links.Next != "" {
			t.Errorf("%s: %+v", path, l)
		}
		f.refuses(t, "paas-validation-1", "GET", path+"?limit=0", "")
		f.as(t, "", "GET", path, "").refused(t, "paas-auth-1")
	}
	logs := f.want(t, 200, "GET", "/clusters/"+f.ClusterID+"/logs?limit=10&direction=BACKWARD&start=2026-01-01T00:00:00Z", "")
	if strings.TrimSpace(logs.Body) != `{"instances":[]}` {
		t.Errorf("logs: %s", logs.Body)
	}
	f.refuses(t, "paas-method-1", "DELETE", "/clusters/backups", "")
}
