package fleet

import (
	"bytes"
	"encoding/binary"
	"strings"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
)

// position is where a user stands in the order of a search.
type position struct {
	time    time.Time // that the order goes by; zero: there is none, which comes last
	cluster string    // display name
	id      uuid.UUID // of the cluster
	name    string
}

// compare orders two positions: by what is asked for, then by the cluster, then by the name. Texts compare by their bytes.
func (order Sort) compare(a, b *position) int {
	sign := 1
	if order.Descending {
		sign = -1
	}
	byName := strings.Compare(a.name, b.name)
	switch order.By {
	case SortCluster:
		if byCluster := compareClusters(a.cluster, a.id, b.cluster, b.id); byCluster != 0 {
			return sign * byCluster
		}
		return byName
	case SortName:
		if byName != 0 {
			return sign * byName
		}
	default:
		switch {
		case a.time.IsZero() != b.time.IsZero():
			if a.time.IsZero() {
				return 1
			}
			return -1
		case !a.time.Equal(b.time):
			return sign * a.time.Compare(b.time)
		}
	}
	if byCluster := compareClusters(a.cluster, a.id, b.cluster, b.id); byCluster != 0 {
		return byCluster
	}
	return byName
}

func compareClusters(a string, idA uuid.UUID, b string, idB uuid.UUID) int {
	if byName := strings.Compare(a, b); byName != 0 {
		return byName
	}
	return bytes.Compare(idA[:], idB[:])
}

// compareCluster compares a cluster with that of the position.
func (at *position) compareCluster(c *cluster.Cluster) int {
	return compareClusters(c.DisplayName, c.ID, at.cluster, at.id)
}

// The cursor is the position of the last user of a page, behind the digest of the search that it is of.
const (
	cursorVersion = 1
	cursorFixed   = 1 + 8 + 1 + 8 + 4 + 16 + 1 // bytes before the texts
)

var errCursor = fault.New(fault.Malformed,
	"The cursor is not the next of a page of this search. Repeat the search with the "+
		"parameters of that page, or begin without a cursor.")

// cursor is the position as the key of the next page.
func (at *position) cursor(search [8]byte) string {
	b := append([]byte{cursorVersion}, search[:]...)
	if at.time.IsZero() {
		b = append(b, make([]byte, 13)...)
	} else {
		b = append(b, 1)
		b = binary.BigEndian.AppendUint64(b, uint64(at.time.Unix()))
		b = binary.BigEndian.AppendUint32(b, uint32(at.time.Nanosecond()))
	}
	b = append(b, at.id[:]...)
	b = append(b, byte(len(at.name)))
	return string(b) + at.name + at.cluster
}

// parseCursor reads a cursor of a search. One that is forged begins elsewhere, and shows nothing that the search would not.
func parseCursor(key string, search [8]byte) (*position, error) {
	b := []byte(key)
	if len(b) < cursorFixed || b[0] != cursorVersion || [8]byte(b[1:9]) != search {
		return nil, errCursor
	}
	at := &position{id: uuid.UUID(b[22:38])}
	seconds, nanoseconds := int64(binary.BigEndian.Uint64(b[10:])), binary.BigEndian.Uint32(b[18:])
	switch b[9] {
	case 0:
		if seconds != 0 || nanoseconds != 0 {
			return nil, errCursor
		}
	case 1:
		at.time = time.Unix(seconds, int64(nanoseconds)).UTC()
		if nanoseconds > 999_999_999 || at.time.Year() < 1 || at.time.Year() > 9999 || at.time.IsZero() {
			return nil, errCursor
		}
	default:
		return nil, errCursor
	}
	length := int(b[38])
	if length == 0 || length > pgrole.MaxName || cursorFixed+length > len(b) {
		return nil, errCursor
	}
	at.name, at.cluster = key[cursorFixed:cursorFixed+length], key[cursorFixed+length:]
	if strings.ContainsRune(at.name, 0) {
		return nil, errCursor
	}
	return at, nil
}
