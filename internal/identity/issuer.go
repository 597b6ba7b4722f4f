package identity

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"rolecall/internal/account"
	"rolecall/internal/label"
	"rolecall/internal/secret"
)

// OIDCIssuer is another issuer. Its bearer tokens are accepted, or people sign in at it with a browser, or both.
type OIDCIssuer struct {
	Name     string // in paths, and where a person chooses an issuer
	URL      string // exactly as its tokens name it
	Audience string // that its bearer tokens must have; "": none is accepted
	ClientID string // with which people sign in there; "": they do not
	// ClientSecretFile is a file with the secret of that client; "": it has none.
	ClientSecretFile string
	// UsernameClaim is the claim that an account's name is taken from; "": preferred_username, else email.
	UsernameClaim string
	// Links says that a subject without an account takes the one that was prepared for its name. Only for an issuer that
	// lets nobody choose a name freely, and gives none twice.
	Links  bool
	Labels []LabelClaim
}

// LabelClaim says which labels an account has because of a claim of its issuer.
type LabelClaim struct {
	// Key is that of the label, whose value is the claim's. With a key like group.* each value of the claim gives a label
	// group.<value> with the value true.
	Key    string
	Claim  string
	Prefix string // of the values that matter; it is cut off
}

// linkUsername is the one way to link a subject to an account that was prepared.
const linkUsername = "username"

// ParseOIDCIssuer reads `url,audience=…` with the settings of --oidc-issuer.
func ParseOIDCIssuer(s string) (OIDCIssuer, error) {
	fields := strings.Split(s, ",")
	i := OIDCIssuer{URL: fields[0]}
	if err := checkIssuerURL(i.URL); err != nil {
		return i, err
	}
	var link string
	settings := map[string]*string{
		"audience": &i.Audience, "client-id": &i.ClientID, "client-secret-file": &i.ClientSecretFile,
		"username": &i.UsernameClaim, "link": &link, "name": &i.Name,
	}
	for _, field := range fields[1:] {
		name, value, _ := strings.Cut(field, "=")
		if name == "label" {
			l, err := parseLabelClaim(value)
			if err != nil {
				return i, err
			}
			i.Labels = append(i.Labels, l)
			continue
		}
		setting := settings[name]
		if setting == nil {
			return i, fmt.Errorf("%q is not a setting of an issuer; those are audience, client-id, client-secret-file, label, "+
				"link=username, name and username", field)
		}
		if value == "" || *setting != "" {
			return i, fmt.Errorf("the setting %s of %s is empty, or given twice", name, i.URL)
		}
		*setting = value
	}
	return i.complete(link)
}

// parseLabelClaim reads key:claim, and key:claim:prefix.
func parseLabelClaim(s string) (LabelClaim, error) {
	key, rest, _ := strings.Cut(s, ":")
	claim, prefix, _ := strings.Cut(rest, ":")
	if key == "" || claim == "" {
		return LabelClaim{}, fmt.Errorf("label=%s is not label=KEY:CLAIM or label=KEY:CLAIM:PREFIX", s)
	}
	if strings.HasPrefix(prefix, "//") {
		return LabelClaim{}, fmt.Errorf("the claim of label=%s is a URL, whose colon ends the claim here; write this issuer into "+
			"the file of --oidc-file", s)
	}
	return LabelClaim{key, claim, prefix}, nil
}

// checkIssuerURL says why a URL cannot be an issuer's.
func checkIssuerURL(issuer string) error {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("%q is not a URL like https://login.example.org", issuer)
	}
	if !private(u) {
		return fmt.Errorf("%s is not https: anybody on the network path could sign in as anybody", issuer)
	}
	return nil
}

// private reports whether nobody on the network path reads or changes what is sent to a URL.
func private(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// maxIssuer is as long as an origin may be.
const maxIssuer = 255

var issuerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,62}$`)

// complete returns the issuer with its defaults, or what is wrong with it.
func (i OIDCIssuer) complete(link string) (OIDCIssuer, error) {
	if err := checkIssuerURL(i.URL); err != nil {
		return i, err
	}
	if i.Links = link == linkUsername; link != "" && !i.Links {
		return i, fmt.Errorf("%s has link=%s; the only link is link=%s", i.URL, link, linkUsername)
	}
	if i.Name == "" {
		u, err := url.Parse(i.URL)
		if err != nil {
			return i, err
		}
		i.Name = u.Hostname()
	} else if !issuerName.MatchString(i.Name) {
		return i, fmt.Errorf("the name %q of %s is part of URLs; use up to 63 letters, digits, and . _ : -, and begin with a "+
			"letter or a digit", i.Name, i.URL)
	}
	switch {
	case i.Audience == "" && i.ClientID == "":
		// Without an audience, a token that the issuer made for any other application would sign in here.
		return i, fmt.Errorf("%s has neither an audience, which its bearer tokens must have, nor a client-id, with which people "+
			"sign in; write %s,audience=… or %s,client-id=…", i.URL, i.URL, i.URL)
	case i.ClientSecretFile != "" && i.ClientID == "":
		return i, fmt.Errorf("%s has a client secret and no client-id; write both", i.URL)
	case utf8.RuneCountInString(i.URL) > maxIssuer:
		return i, fmt.Errorf("the URL of the issuer has more than %d characters", maxIssuer)
	case i.Origin() == account.LocalOrigin:
		return i, fmt.Errorf("%s would have the origin %q, which is that of local accounts; give it another host name", i.URL,
			i.Origin())
	}
	return i, i.checkLabels()
}

// checkLabels says what is wrong with the keys of labels. Two claims must not decide about one label.
func (i OIDCIssuer) checkLabels() error {
	for n, l := range i.Labels {
		if err := label.CheckKey(strings.TrimSuffix(l.Key, account.AnyLabel)); err != nil {
			return fmt.Errorf("the label %q of %s is not valid: %w", l.Key, i.URL, err)
		}
		for _, other := range i.Labels[:n] {
			if account.LabelKeysOverlap(l.Key, other.Key) {
				return fmt.Errorf("the labels %q and %q of %s are the same for some account; give each label one claim", other.Key,
					l.Key, i.URL)
			}
		}
	}
	return nil
}

// Origin is what the issuer's accounts have as their origin: its URL without the scheme.
func (i OIDCIssuer) Origin() string {
	_, rest, _ := strings.Cut(i.URL, "://")
	return strings.TrimRight(rest, "/")
}

// named reports whether somebody meets the issuer's name.
func (i OIDCIssuer) named() bool { return i.ClientID != "" || len(i.Labels) > 0 }

// ClientSecret reads the secret of the issuer's client; "": it has none. The file is read each time, so that a new secret
// takes effect without a restart.
func (i OIDCIssuer) ClientSecret() (secret.Text, error) {
	if i.ClientSecretFile == "" {
		return "", nil
	}
	data, err := os.ReadFile(i.ClientSecretFile)
	if err != nil {
		return "", fmt.Errorf("the client secret cannot be read: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		return "", fmt.Errorf("the file %s of the client secret is empty; write the secret into it", i.ClientSecretFile)
	}
	return secret.Text(text), nil
}

// CheckOIDCIssuers returns why a server with this issuer of its own cannot accept these others.
func CheckOIDCIssuers(own string, issuers []OIDCIssuer) error {
	origins := map[string]bool{OIDCIssuer{URL: own}.Origin(): true}
	for n, i := range issuers {
		if origins[i.Origin()] {
			return fmt.Errorf("%s is this server itself, or given twice", i.URL)
		}
		origins[i.Origin()] = true
		twin := slices.IndexFunc(issuers[:n], func(o OIDCIssuer) bool { return o.named() && i.named() && o.Name == i.Name })
		if twin >= 0 {
			return fmt.Errorf("%s and %s have the name %q; give one of them another with name=", issuers[twin].URL, i.URL, i.Name)
		}
	}
	return nil
}
