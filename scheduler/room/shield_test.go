package room_test

import (
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
)

// What a gang keeps away is kept from where it runs and from the room that is kept for it, and comes back with a rollback.
func TestAShieldIsWhereItsGangIsOrWillBe(t *testing.T) {
	m := room.New(nil)
	m.Set(cluster.Node{ID: "n0", State: cluster.NodeReady, MilliCPU: 8000, Memory: 1 << 30}, cluster.Resources{})
	s := room.NewShape("late", []cluster.Role{{Name: "w", Count: 1, Ask: cluster.Ask{MilliCPU: 1000}}})
	late, self := &room.Guest{ID: "late/main", Job: "late"}, &room.Guest{ID: "apart/main", Job: "late"}
	fits := func(g *room.Guest) bool {
		mark := m.Mark()
		defer m.Rollback(mark)
		allocations, _ := m.Take(s.For(g))
		return allocations != nil
	}
	at := []cluster.Allocation{{Node: "n0", Resources: cluster.Resources{MilliCPU: 1000}}}
	m.Shield("apart/main", []cluster.Affinity{{Job: "late", Anti: true}})
	if !fits(late) || !m.Shuns(late) {
		t.Error("kept away from a gang that is nowhere")
	}
	m.Pin("apart/main", at)
	if fits(late) || !fits(self) {
		t.Error("it may go where room is kept for a gang that must be away from it, or the gang itself may not")
	}
	mark := m.Mark()
	if m.Unpin("apart/main"); !fits(late) {
		t.Error("kept away from where no room is kept any more")
	}
	if m.Rollback(mark); fits(late) {
		t.Error("the room is kept again, and it may go there")
	}
	m.Unpin("apart/main")
	m.Settle()
	m.House("apart/main", room.Tenant{Job: "apart", At: at})
	mark = m.Mark()
	if fits(late) {
		t.Error("it may go where the gang runs")
	}
	if m.Vacate("apart/main", at); !fits(late) || !m.Clone().Shuns(late) {
		t.Error("the gang is taken to have ended, and still keeps it away")
	}
	if m.Rollback(mark); fits(late) {
		t.Error("the gang is there again, and does not keep it away")
	}
	if m.Shield("apart/main", nil); !fits(late) || m.Shuns(late) {
		t.Error("it is kept away though nobody asks for it any more")
	}
}
