package pgrole

import (
	"sync"

	"rolecall/internal/fault"
)

// Listed is a page of users, which all who asked for it at the same time share: none of it may be changed.
type Listed struct {
	Users []*User
	More  bool // others follow

	once    sync.Once
	encoded []byte
}

// Encoded returns what encode makes of the users, made once for all who share the page. What it makes must depend on nothing
// but them and their cluster.
func (l *Listed) Encoded(encode func([]*User) []byte) []byte {
	l.once.Do(func() { l.encoded = encode(l.Users) })
	return l.encoded
}

// noUserThere refuses a place behind which no page of users can begin.
var noUserThere = fault.New(fault.Invalid, "A page of users begins behind the name of a user, of 1 to %d bytes without "+
	"NUL, in characters that the cluster can store.", MaxName)

// CheckAfter refuses what no user is named, as the place behind which a page begins. A user of the name need not be there.
func CheckAfter(name string) error {
	if !nameable(name) {
		return noUserThere
	}
	return nil
}
