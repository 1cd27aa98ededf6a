package operate

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/clienttest"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
)

func TestWhoWaitsForANodeToBeEmptyHearsThatItWasTakenBack(t *testing.T) {
	fake, err := clienttest.Start(1)
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	c, err := client.Dial(fake.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fake.PutNode(client.NodeView{Node: cluster.Node{ID: "n1", State: cluster.NodeReady}, Tasks: []string{"x/main/worker-0.1"}})
	a := app{&shell.App{Err: io.Discard}}
	if err := a.awaitEmpty(t.Context(), c, "n1"); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "n1 was taken back meanwhile") {
		t.Error(err)
	}
	fake.PutNode(client.NodeView{Node: cluster.Node{ID: "n1", State: cluster.NodeDraining}})
	if err := a.awaitEmpty(t.Context(), c, "n1"); err != nil {
		t.Error(err)
	}
}

// A machine whose clock is an hour behind would have everything on the node ended at once.
func TestADeadlineIsCountedByTheClustersClock(t *testing.T) {
	for ahead, clock := range map[time.Duration]func() time.Time{0: nil, time.Hour: func() time.Time { return time.Now().Add(time.Hour) }} {
		fake, err := clienttest.Start(1)
		if err != nil {
			t.Fatal(err)
		}
		defer fake.Close()
		fake.Clock = clock
		fake.PutNode(client.NodeView{Node: cluster.Node{ID: "n1", State: cluster.NodeReady}})
		c, err := client.Dial(fake.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		begun := time.Now()
		node, err := drainFlags{deadline: "10m"}.start(t.Context(), c, "n1")
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Unix(0, node.Deadline).Sub(begun) - ahead; left < 10*time.Minute || left > 10*time.Minute+time.Since(begun) {
			t.Errorf("with a cluster that is %s ahead it has %s", ahead, left)
		}
	}
}
