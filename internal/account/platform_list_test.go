package account

import (
	"fmt"
	"testing"
)

// However many lists there are, and however long, what is kept stays small.
func TestListsKept(t *testing.T) {
	var l lists
	for i := range 200 {
		key := fmt.Sprint(i % 50)
		l.put(key, &matches{ids: make([]int64, 1000*(i%60))})
		if l.get(key) == nil {
			t.Fatalf("list %d is not kept", i)
		}
		size := 0
		for key, m := range l.byKey {
			size += listSize(key, m)
		}
		if size != l.size || size > maxLists {
			t.Fatalf("%d bytes are kept, %d counted", size, l.size)
		}
	}
	if len(l.byKey) < 5 {
		t.Errorf("%d lists are kept", len(l.byKey))
	}
	l.put("long", &matches{ids: make([]int64, maxLists/8)})
	if l.get("long") != nil {
		t.Error("a list is kept that leaves no room for others")
	}
}
