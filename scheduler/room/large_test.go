package room

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/clary-ml/clary/cluster"
)

// TestDecisionsAmongThousandsAreThoseOfAScan: trees of several rows, long logs and many classes.
func TestDecisionsAmongThousandsAreThoseOfAScan(t *testing.T) {
	for _, gang := range []int{1, 8} {
		l, m := synthetic(2000, gang, 0.9), New(nil)
		l.fill(m)
		w := &world{m: m}
		next := uint64(1)
		var holds [][]cluster.Allocation
		placed, refused := 0, 0
		for i := range 1500 {
			s := l.shapes[(i*31)%len(l.shapes)]
			want := w.scanTake(m, s) // and undone
			mark := Mark{len(m.undo.steps) - s.Size, m.undo.settled}
			if want != nil {
				m.Rollback(mark)
			}
			got, _ := m.Take(s)
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("decision %d is %v, a scan says %v", i, got, want)
			}
			m.Settle()
			if got == nil {
				refused++
				continue
			}
			placed++
			holds = append(holds, got)
			if next = mix(next + 1); next%4 == 0 && gang == 1 || next%16 == 0 { // something ends
				at := int(next>>8) % len(holds)
				m.Give(holds[at])
				m.Settle()
				holds[at] = holds[len(holds)-1]
				holds = holds[:len(holds)-1]
			}
		}
		if placed == 0 || gang > 1 && refused == 0 {
			t.Errorf("gangs of %d: %d placed, %d refused", gang, placed, refused)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	l, m := synthetic(50, 1, 0), New(nil)
	m.cells = 20 * 50 // scores of twenty classes
	l.fill(m)
	for i := range 200 {
		m.Take(NewShape("job", []cluster.Role{{Name: "w", Count: 1, Ask: cluster.Ask{MilliCPU: int64(i)}, Labels: map[string]string{"unheard": fmt.Sprint(i)}}}))
	}
	if len(m.classes) != 20 || len(m.filters) > 2*20+65 {
		t.Errorf("%d classes and %d filters are kept", len(m.classes), len(m.filters))
	}
	sum := m.Sum()
	for i := range 1000 { // nodes come back with other labels and more devices
		n := l.nodes[i%50]
		n.Labels = map[string]string{"boot": fmt.Sprint(i)}
		n.Devices = n.Devices[:min(len(n.Devices), i/50%9)]
		m.Set(n, cluster.Resources{})
		m.Mark()
	}
	if kinds, devices := len(m.fixed.kinds), len(m.devices); kinds > 2*50+65 || devices > 2*50*8 {
		t.Errorf("%d kinds and %d devices are kept of 50 nodes", kinds, devices)
	}
	for _, n := range l.nodes {
		m.Set(n, cluster.Resources{})
	}
	if m.Sum() != sum {
		t.Error("the nodes are not what they were")
	}
}

func BenchmarkScan(b *testing.B) {
	l, m := synthetic(10_000, 1, 1.3), New(nil)
	l.fill(m)
	w := &world{m: m}
	i := 0
	for b.Loop() {
		w.scanTake(m, l.shapes[i%len(l.shapes)])
		m.Settle()
		i++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
}
