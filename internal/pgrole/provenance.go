package pgrole

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"golang.org/x/text/encoding/charmap"
)

// Provenance is who made a role and who changed it last. It is written with COMMENT ON ROLE in the transaction of the
// change itself, so it commits with it, and moves with the role through rename, replication, dumps and upgrades. Every
// role of the cluster can read it, so it holds guids, and no names or addresses.
type Provenance struct {
	Created    time.Time `json:"created,omitzero"`
	CreatedBy  string    `json:"createdBy,omitempty"`
	Modified   time.Time `json:"modified,omitzero"`
	ModifiedBy string    `json:"modifiedBy,omitempty"`
	Revision   int       `json:"revision"`
	Attempt    uuid.UUID `json:"attempt"`
	// Previous is the attempt that changed the role before this one: whatever became of its record, it was committed.
	Previous uuid.UUID `json:"previous,omitzero"`
	State    string    `json:"state,omitempty"`
	// FormerState is the state to which an aborted deletion returns.
	FormerState string `json:"was,omitempty"`
	// FormerRevision is the revision from before the deletion began.
	FormerRevision string `json:"from,omitempty"`
	// Password is PasswordKept if the user is disabled and has kept its password, so that it can be enabled; else "".
	Password string `json:"password,omitempty"`
	// Fingerprint is that of the verifier that Rolecall has set last; "": it has set none, or an older release has.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Lease is the id of the lease that the role belongs to; nil: none. Only then there is what follows: the role that it acts
	// for, its end by the clock of the cluster, the name of the credential that it belongs to, if any, and the installation of
	// Rolecall that has made it; nil: an older release.
	Lease        uuid.UUID `json:"lease,omitzero"`
	For          string    `json:"for,omitempty"`
	Ends         time.Time `json:"ends,omitzero"`
	Credential   string    `json:"credential,omitempty"`
	Installation uuid.UUID `json:"installation,omitzero"`
	// Access says of which access role this is the record; nil: of none.
	Access *AccessRecord `json:"access,omitempty"`
}

// The states of a database user other than the usual one, which is "".
const (
	StateDeleting = "deleting" // NOLOGIN; the same DELETE finishes it
	StateDisabled = "disabled" // NOLOGIN; and no password, unless that was kept
)

// PasswordKept is in the record of a user that was disabled and only has to be enabled.
const PasswordKept = "kept"

// Managed reports whether the role was made or changed here.
func (p Provenance) Managed() bool { return p.Revision > 0 }

func (p Provenance) changed(now time.Time, by Actor) Provenance {
	p.Modified = now
	p.ModifiedBy = by.Account
	if p.Attempt != by.Attempt { // an aborted deletion changes the role twice
		p.Previous = p.Attempt
	}
	p.Attempt = by.Attempt
	p.Revision++
	return p
}

// marker starts the line of a comment that is ours. What people wrote stands in the other lines; a change moves ours to the
// end.
const marker = "rolecall:v1 "

func (p Provenance) comment(human string) string {
	data, err := json.Marshal(p)
	if err != nil {
		panic(err) // times and strings only
	}
	if human == "" {
		return marker + string(data)
	}
	return human + "\n" + marker + string(data)
}

// parseComment splits a role's comment into what people wrote and our record, which is the last line that can be one.
func parseComment(comment string) (human string, p Provenance) {
	for end := len(comment); end >= 0; {
		start := strings.LastIndexByte(comment[:end], '\n') + 1
		if p, ours := parseRecord(comment[start:end]); ours {
			switch {
			case end < len(comment):
				return comment[:start] + comment[end+1:], p
			case start > 0:
				return comment[:start-1], p
			}
			return "", p
		}
		end = start - 1
	}
	return comment, Provenance{}
}

// parseRecord reads a line of a comment, and reports whether it is a record of ours.
func parseRecord(line string) (p Provenance, ours bool) {
	data, ours := strings.CutPrefix(line, marker)
	if !ours || len(data) > maxRecord {
		return Provenance{}, false
	}
	if !p.scan(data) {
		p = Provenance{}
		if json.Unmarshal([]byte(data), &p) != nil {
			return Provenance{}, false
		}
	}
	return p, p.valid()
}

// readable is a comment in UTF-8. PostgreSQL stores comments on roles as bytes of the database in which they were written:
// what is not UTF-8 is read as the most common of the other encodings, so that it can be shown, and written back.
func readable(human string) string {
	if utf8.ValidString(human) {
		return human
	}
	lines := strings.Split(human, "\n")
	for i, line := range lines {
		if whole := strings.ToValidUTF8(line, ""); len(line) >= maxListed/4 && len(line)-len(whole) < utf8.UTFMax {
			lines[i] = whole // cut in a character by commentUpTo
		} else if !utf8.ValidString(line) {
			lines[i], _ = charmap.Windows1252.NewDecoder().String(line) // every byte means a character
		}
	}
	return strings.Join(lines, "\n")
}

// scan reads a record as comment writes it, ten times faster than encoding/json: a list has a hundred. It reports whether it
// could; what has been edited since may hold anything that JSON allows.
func (p *Provenance) scan(data string) bool {
	rest, ok := strings.CutPrefix(data, "{")
	for ok {
		var key, value string
		if key, rest, ok = cutString(rest); !ok {
			return false
		}
		if rest, ok = strings.CutPrefix(rest, ":"); !ok {
			return false
		}
		if key == "revision" {
			end := strings.IndexAny(rest, ",}")
			if end < 1 || rest[0] < '1' || rest[0] > '9' {
				return false
			}
			var err error
			if p.Revision, err = strconv.Atoi(rest[:end]); err != nil {
				return false
			}
			rest = rest[end:]
		} else if value, rest, ok = cutString(rest); !ok {
			return false
		}
		switch key {
		case "revision":
		case "created":
			ok = scanTime(&p.Created, value)
		case "createdBy":
			p.CreatedBy = value
		case "modified":
			ok = scanTime(&p.Modified, value)
		case "modifiedBy":
			p.ModifiedBy = value
		case "attempt":
			ok = scanID(&p.Attempt, value)
		case "previous":
			ok = scanID(&p.Previous, value)
		case "state":
			p.State = value
		case "was":
			p.FormerState = value
		case "from":
			p.FormerRevision = value
		case "password":
			p.Password = value
		case "fingerprint":
			p.Fingerprint = value
		case "lease":
			ok = scanID(&p.Lease, value)
		case "for":
			p.For = value
		case "ends":
			ok = scanTime(&p.Ends, value)
		case "credential":
			p.Credential = value
		case "installation":
			ok = scanID(&p.Installation, value)
		default:
			ok = false
		}
		if !ok || rest == "}" {
			return ok
		}
		rest, ok = strings.CutPrefix(rest, ",")
	}
	return false
}

// cutString cuts a JSON string off that has no escapes and nothing beyond ASCII.
func cutString(s string) (value, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", s, false
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return s[1:i], s[i+1:], true
		case c < ' ' || c > '~' || c == '\\':
			return "", s, false
		}
	}
	return "", s, false
}

func scanTime(t *time.Time, value string) bool {
	var err error
	*t, err = time.Parse(time.RFC3339Nano, value)
	return err == nil
}

func scanID(id *uuid.UUID, value string) bool {
	var err error
	*id, err = uuid.Parse(value)
	return err == nil
}

// maxRecord is the longest line that is ours, in bytes. A guid has up to 200 characters, and there are two.
const maxRecord = 4096

// maxFingerprint is what the fingerprint of a later release may have, in bytes.
const maxFingerprint = 100

// valid reports whether the record can have been written here. The owner of a database writes its comment, and may
// write anything.
func (p Provenance) valid() bool {
	sane := func(t time.Time) bool { return t.IsZero() || 1 < t.UTC().Year() && t.UTC().Year() < 9999 }
	return p.Revision > 0 && p.Attempt != uuid.Nil && sane(p.Created) && sane(p.Modified) &&
		utf8.RuneCountInString(p.CreatedBy) <= 200 && utf8.RuneCountInString(p.ModifiedBy) <= 200 && p.validLease() &&
		len(p.Fingerprint) <= maxFingerprint &&
		(p.Access == nil || p.Lease == uuid.Nil && p.Access.valid())
}

// validLease reports whether all is there that a lease has, and nothing of it if there is none.
func (p Provenance) validLease() bool {
	if p.Lease == uuid.Nil {
		return p.For == "" && p.Ends.IsZero() && p.Credential == "" && p.Installation == uuid.Nil
	}
	year := p.Ends.UTC().Year()
	return nameable(p.For) && 1 < year && year < 9999 && utf8.RuneCountInString(p.Credential) <= 200
}
