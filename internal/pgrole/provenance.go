package pgrole

import (
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"
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
	Attempt    string    `json:"attempt"`
	State      string    `json:"state,omitempty"`
	// Was is the state to which a delete that is called off returns.
	Was string `json:"was,omitempty"`
}

// The states of a database user other than the usual one, which is "".
const (
	StateDeleting = "deleting" // NOLOGIN; the same DELETE finishes it
	StateDisabled = "disabled" // NOLOGIN and no password; a new password enables it
)

// Managed reports whether the role was made or changed here.
func (p Provenance) Managed() bool { return p.Revision > 0 }

func (p Provenance) changed(now time.Time, stamp Stamp) Provenance {
	p.Modified = now
	p.ModifiedBy = stamp.Account
	p.Attempt = stamp.Attempt
	p.Revision++
	return p
}

// marker starts the line of a comment that is ours: the last one. What people wrote stands before it.
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

// parseComment splits a role's comment. A last line that cannot be read counts as a human's.
func parseComment(comment string) (human string, p Provenance) {
	human, last := "", comment
	if i := strings.LastIndexByte(comment, '\n'); i >= 0 {
		human, last = comment[:i], comment[i+1:]
	}
	data, ours := strings.CutPrefix(last, marker)
	if !ours || len(data) > maxRecord || json.Unmarshal([]byte(data), &p) != nil || !p.valid() {
		return comment, Provenance{}
	}
	return human, p
}

// maxRecord is the longest line that is ours, in bytes. A guid has up to 200 characters, and there are two.
const maxRecord = 4096

// valid reports whether the record can have been written here. The owner of a database writes its comment, and may
// write anything.
func (p Provenance) valid() bool {
	sane := func(t time.Time) bool { return t.IsZero() || 1 < t.UTC().Year() && t.UTC().Year() < 9999 }
	return p.Revision > 0 && p.Attempt != "" && sane(p.Created) && sane(p.Modified) &&
		utf8.RuneCountInString(p.CreatedBy) <= 200 && utf8.RuneCountInString(p.ModifiedBy) <= 200
}
