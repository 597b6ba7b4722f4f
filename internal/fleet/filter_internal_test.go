package fleet

import (
	"testing"

	"github.com/google/uuid"

	"rolecall/internal/cluster"
	"rolecall/internal/fault"
)

// A cluster whose display name is the id of another one is not chosen in its place.
func TestChosen(t *testing.T) {
	shop := &cluster.Cluster{ID: uuid.New(), DisplayName: "shop"}
	other := &cluster.Cluster{ID: uuid.New(), DisplayName: shop.ID.String()}
	clusters := []*cluster.Cluster{other, shop}
	for text, want := range map[string]*cluster.Cluster{shop.ID.String(): shop, "shop": shop, other.ID.String(): other} {
		if got, err := chosen(clusters, text); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	if _, err := chosen(clusters, "Shop"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a name in another case: %v", err)
	}
}
