package cli

import (
	"io"
	"strings"
	"testing"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/clienttest"
	"github.com/clary-ml/clary/cluster"
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
	a := &App{Err: io.Discard}
	if err := a.awaitEmpty(t.Context(), c, "n1"); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "n1 was taken back meanwhile") {
		t.Error(err)
	}
	fake.PutNode(client.NodeView{Node: cluster.Node{ID: "n1", State: cluster.NodeDraining}})
	if err := a.awaitEmpty(t.Context(), c, "n1"); err != nil {
		t.Error(err)
	}
}
