package console

import (
	"fmt"
	"net/http"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/door"
	"rolecall/internal/pgrole"
	"rolecall/internal/secret"
)

const newClusterPath = clustersPath + "/new"

func (c *Console) registerRoutes() []door.Route {
	return formPage(newClusterPath, c.registerPage, c.registerCluster)
}

// The steps of the form: each is the value of a button.
const (
	stepField    = "step"
	stepRegister = "register"
	stepEdit     = "edit"
)

// previewField carries the connection of a preview, encrypted: so the password is typed once and never sent to the browser.
const previewField = "preview"

// The names of the fields of a cluster are those of our API, because faults name them so.
const (
	nameField       = "displayName"
	locationField   = "location"
	urlField        = "connection.url"
	passwordField   = "connection.password"
	tlsModeField    = "connection.tls.mode"
	plaintextField  = "connection.tls.allowPlaintext"
	tlsCAField      = "connection.tls.ca"
	tlsCertField    = "connection.tls.cert"
	tlsKeyField     = "connection.tls.key"
	identifierField = "connection.systemIdentifier"
	manageField     = "access.manage"
	viewField       = "access.view"
	systemField     = "systemRoles"
	memberOfField   = "memberOf"
	grantableField  = "grantable"
)

// carried are the fields of the first step that the second one carries on.
var carried = []string{nameField, locationField, urlField, tlsModeField, plaintextField, tlsCAField, tlsCertField,
	manageField, viewField, systemField, memberOfField, grantableField}

var tlsModes = []option{
	{"verify-full", "verify-full: the certificate must be valid for the host"},
	{"verify-ca", "verify-ca: it must be valid, for any host"},
	{"require", "require: encrypted, but nothing is verified"},
	{"disable", "disable: no TLS, for this machine only"},
}

// newCluster is what the first step shows.
type newCluster struct {
	TLSModes    []option
	Password    input
	Key         input
	SystemRoles string // the default
	More        bool   // the fields that are rarely needed are open
}

func (c *Console) registerPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if err := c.Users.MayRegisterCluster(r.Context(), p); err != nil {
		return err
	}
	shown := newCluster{TLSModes: tlsModes, Key: keyInput(f), SystemRoles: strings.Join(cluster.DefaultSystemRoles, "\n"),
		Password: f.Password(passwordField, "Password of this role", "off", "It is stored encrypted. You can rotate it later, so "+
			"that only Rolecall knows it.")}
	for _, name := range []string{tlsCAField, tlsCertField, grantableField, memberOfField} {
		shown.More = shown.More || f.Get(name) != ""
	}
	return c.show(w, r, p, page{Template: "clusters/new.html", Title: "Register a cluster", Area: "clusters",
		Crumbs: []crumb{{"Clusters", clustersPath}}, Form: f, Data: shown})
}

// keyInput is the field for a private key, which is never sent back to the browser.
func keyInput(f *form) input {
	key := f.Area(tlsKeyField, "Key of the client certificate, in PEM", "", "It is stored encrypted, and never shown again.")
	key.Value = ""
	return key
}

// previewed is what the second step shows.
type previewed struct {
	*cluster.Preview
	Name    string
	Version string
	Rights  []pgrole.Right
	Others  []pgrole.Problem
	Refusal string // why the cluster cannot be registered as it is
	Carried []carriedField
}

// carriedField is a value of the first step.
type carriedField struct{ Name, Value string }

// registerCluster shows what is at a connection, and registers the cluster when that was seen. Nothing is stored before.
func (c *Console) registerCluster(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if f.Get(stepField) == stepEdit {
		return c.registerPage(w, r, p, f)
	}
	to := cluster.Connection{URL: f.Get(urlField), TLS: typedTLS(f), Password: secret.Text(f.Values.Get(passwordField)),
		Key: secret.Text(f.Values.Get(tlsKeyField))}
	if sealed := f.Get(previewField); sealed != "" {
		var err error
		if to, err = c.Users.PreviewedConnection(p, sealed); err != nil {
			return err
		}
	}
	settings := typedSettings(f)
	if f.Get(stepField) == stepRegister {
		registered, err := c.Users.RegisterCluster(r.Context(), p, settings, to)
		if err != nil {
			return err
		}
		return c.redirect(w, pagePath("clusters", registered.ID.String()), fmt.Sprintf("The cluster %s is registered.",
			registered.DisplayName))
	}
	found, err := c.Users.PreviewCluster(r.Context(), p, settings, to)
	if err != nil {
		return err
	}
	shown := previewed{Preview: found, Name: *settings.DisplayName, Rights: found.Capabilities.Rights(),
		Others: found.Capabilities.OtherProblems()}
	if problem := to.PlaintextProblem(); problem != "" {
		shown.Others = append(shown.Others, pgrole.Problem{Text: problem})
	}
	shown.Version, _, _ = strings.Cut(found.Version, " ")
	for _, name := range carried {
		shown.Carried = append(shown.Carried, carriedField{name, f.Values.Get(name)})
	}
	if found.Refusal != nil {
		f.refuse(found.Refusal)
	}
	return c.show(w, r, p, page{Template: "clusters/preview.html", Title: "Register a cluster: what was found",
		Area: "clusters", Crumbs: []crumb{{"Clusters", clustersPath}}, Form: f, Data: shown})
}

func typedTLS(f *form) cluster.TLS {
	return cluster.TLS{Mode: f.Get(tlsModeField), CA: f.Get(tlsCAField), Cert: f.Get(tlsCertField),
		AllowPlaintext: f.Get(plaintextField) != ""}
}

// typedSettings are the settings that the first step has fields for.
func typedSettings(f *form) cluster.Settings {
	s := cluster.Settings{DisplayName: text(f, nameField), Manage: lines(f, manageField), View: lines(f, viewField),
		SystemRoles: lines(f, systemField), MemberOf: lines(f, memberOfField), Grantable: lines(f, grantableField)}
	if f.Get(locationField) != "" {
		s.Location = text(f, locationField)
	}
	return s
}

func text(f *form, name string) *string { return new(f.Get(name)) }

// lines are the lines of a field, without empty ones.
func lines(f *form, name string) *[]string {
	typed := []string{}
	for line := range strings.Lines(f.Values.Get(name)) {
		if line = strings.TrimSpace(line); line != "" {
			typed = append(typed, line)
		}
	}
	return &typed
}
