// Package manifest is the file that declares a fleet: how it is read, what it may say, and the plan that brings a fleet to
// it. The plan is a function of the file and of what was observed; nothing here sends a request.
package manifest

// kind is what a value is.
type kind int

const (
	object     kind = iota // keys that are known
	list                   // elements of one shape
	dictionary             // keys that the file chooses
	text
	choice   // one of some words
	flag     // true or false
	number   // an integer, or one of some words
	duration // like 90s, 36h or 7d
	instant  // a time, a date, or one of some words
	secret   // where a secret comes from, or one of some words; never the secret itself
)

// shape says what a value may be. The parser and the JSON Schema are both made from it, so they cannot disagree about it.
type shape struct {
	kind  kind
	about string
	keys  []key  // of an object
	of    *shape // the elements of a list, the values of a dictionary
	words []string
	least int // the fewest characters or elements, or the least number
	most  int // the most bytes or elements, or the greatest number; 0: no limit
	// pattern is a regular expression for a text, and form says what it accepts.
	pattern, form string
	private       bool // a text that might contain a password, so that messages do not quote it
}

// key is a key of an object.
type key struct {
	name     string
	required bool
	shape    *shape
}

// Version is the version of the file's format.
const Version = 1

// The modes of a file.
const (
	// Additive only adds and changes what the file says.
	Additive = "additive"
	// Adopt does the same, also to what others have made.
	Adopt = "adopt"
	// Authoritative does the same, removes what a list of the file does not name from that list, and deletes what is retired.
	Authoritative = "authoritative"
)

// Modes are all modes.
var Modes = []string{Additive, Adopt, Authoritative}

// The words of the file.
const (
	Generate = "generate"
	Keep     = "keep"
	Never    = "never"
	None     = "none"
	Default  = "default"
)

func described(about string, s shape) *shape {
	s.about = about
	return &s
}

func named(about string, most int) *shape {
	return &shape{kind: text, about: about, least: 1, most: most}
}

func listOf(about string, most int, of *shape) *shape {
	return &shape{kind: list, about: about, most: most, of: of}
}

var (
	roleName     = shape{kind: text, least: 1, most: 63}
	rule         = shape{kind: text, least: 1, most: 1000}
	credential   = shape{kind: secret}
	durationText = shape{kind: duration}
	clockTime    = shape{kind: text, pattern: `^([01][0-9]|2[0-3]):[0-5][0-9]$`, form: "a time like 02:00"}
)

// pairs are labels or annotations.
func pairs(about string, most int) *shape {
	return &shape{kind: dictionary, about: about, most: most, of: &shape{kind: text, most: 5000}}
}

// file is the shape of the whole file.
var file = shape{kind: object, about: "A fleet of PostgreSQL clusters: accounts, clusters, databases and users.",
	keys: []key{
		{"version", true, &shape{kind: number, about: "The version of the format, 1.", least: Version, most: Version}},
		{"mode", false, &shape{kind: choice, words: Modes,
			about: "What may happen to what the file does not name. additive (the " +
				"default) adds and changes. adopt also changes what other accounts, or SQL, have made. authoritative also makes lists " +
				"exact, and deletes what is retired."}},
		{"accounts", false, listOf("Accounts of Rolecall.", 0, &accountShape)},
		{"clusters", false, listOf("PostgreSQL clusters.", 0, &clusterShape)},
		{"retired", false, listOf("What an authoritative file deletes.", 0, &retiredShape)},
	}}

var accountShape = shape{kind: object, keys: []key{
	{"username", true, named("Its user name. Upper and lower case do not differ.", 255)},
	{"origin", false, named("Who verifies its password or token; the default is uaa, which is Rolecall itself.", 255)},
	{"active", false, &shape{kind: flag, about: "Whether it can sign in."}},
	{"scopes", false, listOf("Its scopes.", 0, &shape{kind: text, least: 1})},
	{"labels", false, pairs("Its labels, by which the rules of clusters select it.", 50)},
	{"annotations", false, pairs("Its annotations.", 200)},
	{"password", false, described("Where the password of a new account comes from; generate without it. An existing account "+
		"keeps its password.", shape{kind: secret, words: []string{Generate, Keep}})},
}}

var clusterShape = shape{kind: object, keys: []key{
	{"name", true, named("Its display name.", 100)},
	{"location", false, named("Where it is.", 100)},
	{"connection", false, described("How Rolecall reaches it. A cluster that is not registered is registered with this.",
		shape{kind: object, keys: []key{
			{"url", true, &shape{kind: text, private: true, pattern: `^postgres(ql)?://[^ ]+$`,
				form:  "a URL like postgres://role@host:5432/database",
				about: "postgres://role@host:5432/database, without a password."}},
			{"password", false, described("Where the password of the administering role comes from. It is read when the cluster "+
				"is registered.", credential)},
			{"tls", false, described("The TLS settings. The files are read when the cluster is registered.",
				shape{kind: object, keys: []key{
					{"mode", false, &shape{kind: choice, words: []string{"verify-full", "verify-ca", "require", "disable"},
						about: "The default is verify-full; disable is for loopback addresses."}},
					{"allowPlaintext", false, &shape{kind: flag, about: "Whether the mode disable is allowed for other addresses, " +
						"because the network is private."}},
					{"ca", false, described("The trusted authorities in PEM.", credential)},
					{"cert", false, described("The client certificate in PEM.", credential)},
					{"key", false, described("The key of the client certificate in PEM.", credential)},
				}})},
		}})},
	{"access", false, described("The accounts that may manage and view it.", shape{kind: object, keys: []key{
		{"manage", false, listOf("Selectors of accounts that may manage it.", 100, &rule)},
		{"view", false, listOf("Selectors of accounts that may view it.", 100, &rule)},
	}})},
	{"memberOf", false, listOf("Roles that every new user is a member of.", 100, &roleName)},
	{"grantable", false, listOf("Roles that a user may be a member of.", 100, &roleName)},
	{"systemRoles", false, listOf("Protected roles; * stands for any characters.", 100, &roleName)},
	{"synchronousCommit", false, &shape{kind: choice, words: []string{Default, "local", "remote_write", "on", "remote_apply"},
		about: "The setting synchronous_commit of Rolecall's sessions."}},
	{"leases", false, described("The limits of leases.", shape{kind: object, keys: []key{
		{"defaultTtl", false, described("How long a lease lasts if nothing else is asked for.", durationText)},
		{"maxTtl", false, described("How long a lease may last.", durationText)},
		{"maxPerAccount", false, &shape{kind: number, least: 1, most: 100000,
			about: "How many leases an account may have at a time."}},
	}})},
	{"databases", false, listOf("Its databases.", 0, &databaseShape)},
	{"users", false, listOf("Its database users.", 0, &userShape)},
	{"credentials", false, listOf("Its stored credentials.", 0, &credentialShape)},
}}

var databaseShape = shape{kind: object, keys: []key{
	{"name", true, named("Its name.", 63)},
	{"owner", false, named("The role that owns a new database. The owner of an existing one is not changed.", 63)},
	{"accessRoles", false, described("That it has access roles, for the levels own, write and read.", shape{kind: object,
		keys: []key{
			{"schemas", false, described("The schemas that they cover; '*' alone, the default, is all.",
				shape{kind: list, least: 1, of: &roleName})},
			{"adopt", false, &shape{kind: flag,
				about: "Whether they also cover what other owners create, and whether roles of their " +
					"names are taken over."}},
		}})},
}}

var userShape = shape{kind: object, keys: []key{
	{"name", true, named("Its name.", 63)},
	{"access", false, &shape{kind: dictionary, about: "Its levels: the name of a database, and the level there.", most: 100,
		of: &shape{kind: choice, words: []string{"own", "write", "read"}}}},
	{"roles", false, listOf("Roles of the cluster's list grantable that it is a member of.", 0, &roleName)},
	{"validUntil", false, &shape{kind: instant, words: []string{Never},
		about: "When its password expires: a time, a date or never."}},
	{"connectionLimit", false, &shape{kind: number, words: []string{None}, most: 1<<31 - 1,
		about: "How many connections it may have at a time, or none, which is no limit."}},
	{"disabled", false, &shape{kind: flag, about: "Whether it may not log in."}},
	{"password", false, described("Where the password of a new user comes from; generate without it. An existing user keeps "+
		"its password.", shape{kind: secret, words: []string{Generate, Keep}})},
}}

var credentialShape = shape{kind: object, keys: []key{
	{"name", true, named("Its name.", 63)},
	{"for", true, named("The user or role that it acts for.", 63)},
	{"rotateEvery", true, described("How long a password is current.", durationText)},
	{"overlap", false, described("How long a replaced password stays valid; 0s without it.", durationText)},
	{"window", false, described("When it rotates; at any time without it.", shape{kind: object, keys: []key{
		{"days", true, described("The days of the week.", shape{kind: list, least: 1, of: &shape{kind: choice,
			words: []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}}})},
		{"from", true, described("When it begins, such as 02:00.", clockTime)},
		{"to", true, described("When it ends. Before from: on the next day.", clockTime)},
		{"timezone", true, named("Its time zone, such as Europe/Berlin.", 100)},
	}})},
}}

var retiredShape = shape{kind: object, about: "One thing to delete: exactly one of account, user, database and credential.",
	keys: []key{
		{"account", false, named("The user name of an account.", 255)},
		{"origin", false, named("The origin of the account; the default is uaa.", 255)},
		{"cluster", false, named("The cluster of the user, database or credential.", 100)},
		{"user", false, named("The name of a database user.", 63)},
		{"reassignTo", false, named("The role that gets what the user owns.", 63)},
		{"database", false, named("The name of a database.", 63)},
		{"destroyData", false, &shape{kind: flag, about: "true confirms that the database is deleted with everything in it."}},
		{"credential", false, named("The name of a stored credential.", 63)},
	}}

// The patterns of durations and times.
const (
	durationPattern = `^([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h|d)` +
		`(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h|d))*$`
	timePattern = `^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2}))?$`
)

// SchemaPath is where a server serves the JSON Schema.
const SchemaPath = "/rolecall/v1/fleet.schema.json"

// Schema is the JSON Schema of the file, of draft 2020-12.
func Schema() map[string]any {
	s := file.schema()
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Rolecall fleet file"
	return s
}

// schema is the JSON Schema of a value.
func (s *shape) schema() map[string]any {
	var of map[string]any
	switch s.kind {
	case object:
		of = s.objectSchema()
	case list:
		of = map[string]any{"type": "array", "items": s.of.schema(), "minItems": s.least}
		if s.most > 0 {
			of["maxItems"] = s.most
		}
		if s.of.kind == text || s.of.kind == choice {
			of["uniqueItems"] = true
		}
	case dictionary:
		of = map[string]any{"type": "object", "additionalProperties": s.of.schema(), "maxProperties": s.most,
			"propertyNames": map[string]any{"minLength": 1}}
	case text:
		of = s.textSchema()
	case choice:
		of = map[string]any{"enum": s.words}
	case flag:
		of = map[string]any{"type": "boolean"}
	case number:
		of = s.orWords(map[string]any{"type": "integer", "minimum": s.least, "maximum": s.most})
	case duration:
		of = map[string]any{"type": "string", "pattern": durationPattern}
	case instant:
		of = s.orWords(map[string]any{"type": "string", "pattern": timePattern})
	case secret:
		of = s.orWords(secretSource("env", "The name of an environment variable."),
			secretSource("file", "The path of a file, from the current folder; a line break at its end is no part of the secret."))
	}
	if s.about != "" {
		of["description"] = s.about
	}
	return of
}

func (s *shape) objectSchema() map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, k := range s.keys {
		properties[k.name] = k.shape.schema()
		if k.required {
			required = append(required, k.name)
		}
	}
	of := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		of["required"] = required
	}
	return of
}

func (s *shape) textSchema() map[string]any {
	of := map[string]any{"type": "string", "minLength": s.least}
	if s.most > 0 {
		of["maxLength"] = s.most
	}
	if s.pattern != "" {
		of["pattern"] = s.pattern
	}
	return of
}

// orWords is one of some schemas, or one of the words.
func (s *shape) orWords(schemas ...map[string]any) map[string]any {
	if len(s.words) == 0 && len(schemas) == 1 {
		return schemas[0]
	}
	var all []any
	if len(s.words) > 0 {
		all = append(all, map[string]any{"enum": s.words})
	}
	for _, schema := range schemas {
		all = append(all, schema)
	}
	return map[string]any{"anyOf": all}
}

func secretSource(name, about string) map[string]any {
	return map[string]any{"type": "object", "required": []string{name}, "additionalProperties": false,
		"properties": map[string]any{name: map[string]any{"type": "string", "minLength": 1, "description": about}}}
}
