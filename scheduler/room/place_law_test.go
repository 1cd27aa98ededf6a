package room

import (
	"fmt"
	"slices"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"pgregory.net/rapid"
)

// site is a cluster whose GPUs are shared and cut, whose nodes stand in racks and have taints, and what really runs there.
type site struct {
	nodes map[string]cluster.Node
	gangs []held
}

type held struct {
	job   string
	roles []cluster.Role
	at    []cluster.Allocation
}

var cuts = []cluster.MIGProfile{ // as of an A100 of 40 GB
	{Name: "1g.5gb", Slices: 1, Memory: 5 << 30, Starts: []int32{0, 1, 2, 3, 4, 5, 6}},
	{Name: "2g.10gb", Slices: 2, Memory: 10 << 30, Starts: []int32{0, 2, 4}},
	{Name: "3g.20gb", Slices: 4, Memory: 20 << 30, Starts: []int32{0, 4}},
	{Name: "7g.40gb", Slices: 8, Memory: 40 << 30, Starts: []int32{0}},
}

func drawSite(t *rapid.T) *site {
	s := &site{nodes: map[string]cluster.Node{}}
	for i := range rapid.IntRange(2, 7).Draw(t, "nodes") {
		n := cluster.Node{ID: fmt.Sprintf("n%d", i), State: cluster.NodeReady, MilliCPU: rapid.Int64Range(1, 12).Draw(t, "cores") * 1000, Memory: 1 << 40, Labels: map[string]string{}}
		if rack := rapid.IntRange(0, 3).Draw(t, "rack"); rack > 0 {
			n.Labels[cluster.LabelRack], n.Labels[cluster.LabelZone] = fmt.Sprint("r", rack), fmt.Sprint("z", rack/2)
		}
		switch rapid.IntRange(0, 5).Draw(t, "taint") {
		case 0:
			n.Taints = []cluster.Taint{{Key: "team", Value: "a", Effect: cluster.EffectNoPlace}}
		case 1:
			n.Taints = []cluster.Taint{{Key: "team", Value: "a", Effect: cluster.EffectPreferNot}}
		}
		cut := rapid.IntRange(0, 2).Draw(t, "cut") == 0
		for d := range rapid.IntRange(0, 4).Draw(t, "gpus") {
			device := cluster.Device{
				UUID: fmt.Sprintf("%s-%d", n.ID, d), Kind: cluster.DeviceGPU, Model: "A100", Healthy: true, Memory: 40 << 30,
				Link: int32(d/2 + 1), NUMA: int32(d/2 + 1), Speed: 1000,
			}
			if cut {
				device.Partitioned, device.Profiles = true, cuts[:rapid.IntRange(0, len(cuts)).Draw(t, "profiles")]
			}
			n.Devices = append(n.Devices, device)
		}
		s.nodes[n.ID] = n
	}
	return s
}

func drawAsk(t *rapid.T) cluster.Ask {
	ask := cluster.Ask{MilliCPU: rapid.Int64Range(0, 2).Draw(t, "ask cores") * 500}
	switch rapid.IntRange(0, 4).Draw(t, "sort") {
	case 0:
		ask.GPUMilli = rapid.Int32Range(1, 999).Draw(t, "milli")
		ask.GPUMemory = rapid.SampledFrom([]int64{0, 0, 1, 10 << 30, 39 << 30}).Draw(t, "with memory")
	case 1:
		ask.GPUMemory = rapid.Int64Range(1, 41).Draw(t, "memory") << 30
	case 2:
		ask.GPUs, ask.MIG = rapid.Int32Range(1, 3).Draw(t, "slots"), rapid.SampledFrom([]string{"1g.5gb", "2g.10gb", "3g.20gb", "7g.40gb", "4g.20gb"}).Draw(t, "profile")
	case 3:
		ask.GPUs = rapid.Int32Range(1, 3).Draw(t, "whole")
	}
	return ask
}

func drawGang(t *rapid.T, job string) []cluster.Role {
	topology := cluster.Topology{
		Level:     rapid.SampledFrom([]cluster.Level{"", "", "", cluster.LevelNVLink, cluster.LevelNode, cluster.LevelRack, cluster.LevelZone}).Draw(t, "level"),
		Preferred: rapid.IntRange(0, 3).Draw(t, "preferred") == 0,
	}
	if topology.Level == "" {
		topology.Preferred = false
	}
	var roles []cluster.Role
	for i := range rapid.IntRange(1, 2).Draw(t, "roles") {
		role := cluster.Role{Name: fmt.Sprint("role", i), Count: rapid.Int32Range(1, 4).Draw(t, "count"), Ask: drawAsk(t), Topology: topology}
		if rapid.IntRange(0, 2).Draw(t, "tolerates") == 0 {
			role.Tolerations = []cluster.Toleration{{Key: "team", Any: true}}
		}
		switch rapid.IntRange(0, 5).Draw(t, "asks") {
		case 0:
			role.Constraints = []cluster.Constraint{{Attribute: "rack", Operator: cluster.OpNotIn, Values: []string{"r1"}}}
		case 1:
			role.Constraints = []cluster.Constraint{{Attribute: "cores", Operator: cluster.OpMore, Values: []string{"4"}, Weight: rapid.Int32Range(0, 1).Draw(t, "weight")}}
		case 2:
			role.Affinities = []cluster.Affinity{{
				Job: rapid.SampledFrom([]string{"job0", "job1", job}).Draw(t, "other"), Anti: rapid.IntRange(0, 3).Draw(t, "anti") > 0,
				Over: rapid.SampledFrom([]cluster.Level{cluster.LevelNode, cluster.LevelRack}).Draw(t, "per"),
			}}
		case 3:
			role.Spread, role.Over, role.Pack = "all", rapid.SampledFrom([]cluster.Level{cluster.LevelNode, cluster.LevelRack}).Draw(t, "over"), rapid.Bool().Draw(t, "pack")
		}
		roles = append(roles, role)
	}
	return roles
}

// build makes the map that knows the site.
func (s *site) build() *Map {
	m := New(nil)
	for i := range 8 {
		if n, there := s.nodes[fmt.Sprintf("n%d", i)]; there {
			m.Set(n, s.used(n.ID))
		}
	}
	for i, g := range s.gangs {
		m.House(fmt.Sprint(i), g.tenant())
		g.count(m, 1)
	}
	return m
}

// count tells the map which tasks are spread or packed together.
func (g held) count(m *Map, sign int) {
	i := 0
	for _, role := range g.roles {
		for range role.Count {
			if i < len(g.at) {
				m.Count(g.job, role.Spread, g.at[i].Node, sign)
			}
			i++
		}
	}
}

func (g held) tenant() Tenant { return Tenant{Job: g.job, At: g.at} }

func (s *site) used(id string) (used cluster.Resources) {
	for _, g := range s.gangs {
		for _, a := range g.at {
			if a.Node == id {
				used.MilliCPU += a.Resources.MilliCPU
				used.Devices = append(used.Devices, a.Resources.Devices...)
				used.Shares, _ = cluster.AddShares(used.Shares, a.Resources.Shares)
			}
		}
	}
	return used
}

// place takes a gang and checks all that its roles demand, knowing nothing of how it was found.
func (s *site) place(m *Map, g held, counted map[string]int) error {
	g.at, _ = m.Take(NewShape(g.job, g.roles))
	if g.at == nil {
		counted["stuck"]++
		return nil
	}
	i := 0
	for _, role := range g.roles {
		at := g.at[i : i+int(role.Count)]
		i += int(role.Count)
		if err := s.suits(role, at, counted); err != nil {
			return err
		}
		if err := s.apart(g.job, role, at, counted); err != nil {
			return err
		}
	}
	if err := s.together(g, counted); err != nil {
		return err
	}
	m.Settle()
	m.House(fmt.Sprint(len(s.gangs)), g.tenant())
	s.gangs = append(s.gangs, g)
	return s.sold(counted)
}

// suits: nodes and devices are as the role demands.
func (s *site) suits(role cluster.Role, at []cluster.Allocation, counted map[string]int) error {
	for _, a := range at {
		if why := role.Unmet(s.nodes[a.Node]); why != "" {
			return fmt.Errorf("%s: %s", a.Node, why)
		}
		if len(s.nodes[a.Node].Taints) > 0 {
			counted["tolerated"]++
		}
		whole, parts := int(role.Ask.GPUs), 0
		switch {
		case role.Ask.MIG != "":
			whole, parts = 0, whole
		case role.Ask.Shares():
			parts = 1
		}
		if len(a.Resources.Devices) != whole || len(a.Resources.Shares) != parts {
			return fmt.Errorf("%v was given for %v", a.Resources, role.Ask)
		}
		for _, share := range a.Resources.Shares {
			device := s.device(share.UUID)
			if role.Ask.MIG == "" {
				if due, _ := role.Ask.ShareOf(device); due != share {
					return fmt.Errorf("given %v, due is %v", share, due)
				}
			} else if p, known := device.Profile(role.Ask.MIG); !known || !p.MayBegin(share.Start) || share.Profile != role.Ask.MIG || share.Memory != p.Memory {
				return fmt.Errorf("slot %v is not to be had of %v", share, device)
			}
		}
		if role.Topology.Level == cluster.LevelNVLink && !role.Topology.Preferred && role.Ask.MIG == "" && whole > 0 {
			counted["island"]++
			for _, uuid := range a.Resources.Devices {
				if s.device(uuid).Link != s.device(a.Resources.Devices[0]).Link {
					return fmt.Errorf("devices %v are of several islands", a.Resources.Devices)
				}
			}
		}
	}
	return nil
}

func (s *site) device(uuid string) cluster.Device {
	for _, n := range s.nodes {
		for _, d := range n.Devices {
			if d.UUID == uuid {
				return d
			}
		}
	}
	return cluster.Device{}
}

func (s *site) place1(id string, over cluster.Level) string {
	n := s.nodes[id]
	switch over {
	case cluster.LevelRack:
		if n.Labels[cluster.LabelRack] == "" {
			return ""
		}
		return n.Labels[cluster.LabelZone] + "/" + n.Labels[cluster.LabelRack]
	case cluster.LevelZone:
		return n.Labels[cluster.LabelZone]
	}
	return id
}

// apart: required affinities and anti-affinities to what runs hold.
func (s *site) apart(job string, role cluster.Role, at []cluster.Allocation, counted map[string]int) error {
	for _, a := range role.Affinities {
		there, any := map[string]bool{}, false
		for _, g := range s.gangs {
			for _, other := range g.at {
				if a.Matches(g.job, nil) {
					there[s.place1(other.Node, a.Over)], any = true, true
				}
			}
		}
		for _, mine := range at {
			where := s.place1(mine.Node, a.Over)
			switch {
			case a.Anti && where != "" && there[where]:
				return fmt.Errorf("%s %q has a task that it is to be away from", a.Over, where)
			case a.Anti && a.Job == job:
				there[where] = true
				counted["apart from itself"]++
			case a.Anti && any:
				counted["apart"]++
			case !a.Anti && a.Job != job && (where == "" || !there[where]):
				return fmt.Errorf("%s %q has no task that it is to be near", a.Over, where)
			case !a.Anti:
				counted["near"]++
			}
		}
	}
	return nil
}

// together: a required topology is kept by all roles that have it.
func (s *site) together(g held, counted map[string]int) error {
	t := g.roles[0].Topology
	if t.Level != cluster.LevelNode && t.Level != cluster.LevelRack && t.Level != cluster.LevelZone {
		return nil
	}
	places, nodes := map[string]bool{}, map[string]bool{}
	for _, a := range g.at {
		nodes[a.Node] = true
		places[s.place1(a.Node, t.Level)] = true
	}
	switch {
	case t.Preferred && len(places) > 1:
		counted["fell back"]++
	case !t.Preferred && (len(places) > 1 || places[""] && len(nodes) > 1): // one node is in one rack, whatever it says
		return fmt.Errorf("a gang that must be in one %s is in %v", t.Level, places)
	default:
		counted["together on "+string(t.Level)]++
	}
	return nil
}

// sold: nothing is given beyond what there is.
func (s *site) sold(counted map[string]int) error {
	for id, n := range s.nodes {
		milli, memory, slots, whole, cores := map[string]int32{}, map[string]int64{}, map[string][cluster.MaxSlices]int{}, map[string]int{}, int64(0)
		for _, g := range s.gangs {
			for _, a := range g.at {
				if a.Node != id {
					continue
				}
				cores += a.Resources.MilliCPU
				for _, uuid := range a.Resources.Devices {
					whole[uuid]++
				}
				for _, share := range a.Resources.Shares {
					if share.Profile == "" {
						milli[share.UUID] += share.Milli
						memory[share.UUID] += share.Memory
						continue
					}
					p, _ := s.device(share.UUID).Profile(share.Profile)
					taken := slots[share.UUID]
					for i := share.Start; i < share.Start+p.Slices; i++ {
						taken[i]++
					}
					slots[share.UUID] = taken
				}
			}
		}
		if cores > n.MilliCPU {
			return fmt.Errorf("%s: %d thousandths of a core of %d", id, cores, n.MilliCPU)
		}
		for _, d := range n.Devices {
			taken := slots[d.UUID]
			switch {
			case whole[d.UUID] > 1 || whole[d.UUID] == 1 && (milli[d.UUID] > 0 || d.Partitioned):
				return fmt.Errorf("device %s is given whole, and to others", d.UUID)
			case milli[d.UUID] > cluster.WholeGPU || memory[d.UUID] > d.Memory:
				return fmt.Errorf("device %s: %d thousandths and %d bytes are shared out", d.UUID, milli[d.UUID], memory[d.UUID])
			case slices.Max(taken[:]) > 1:
				return fmt.Errorf("device %s: slots overlap: %v", d.UUID, taken)
			case d.Partitioned && milli[d.UUID] > 0:
				return fmt.Errorf("device %s is cut and shared", d.UUID)
			}
			if milli[d.UUID] > 500 {
				counted["shared"]++
			}
			if taken[0]+taken[4] > 0 {
				counted["slots"]++
			}
		}
	}
	return nil
}

// playSite draws a site and what happens there, and returns the first law that was broken; sabotage happens after
// every step.
func playSite(t *rapid.T, counted map[string]int, sabotage func(*Map)) error {
	s := drawSite(t)
	m := s.build()
	for range rapid.IntRange(3, 14).Draw(t, "steps") {
		job := fmt.Sprint("job", rapid.IntRange(0, 3).Draw(t, "job"))
		if len(s.gangs) > 0 && rapid.IntRange(0, 4).Draw(t, "ends") == 0 {
			i := rapid.IntRange(0, len(s.gangs)-1).Draw(t, "who")
			m.Give(s.gangs[i].at)
			m.Settle()
			m.Leave(fmt.Sprint(i))
			s.gangs[i].count(m, -1)
			s.gangs[i].at = nil
			counted["ended"]++
		} else {
			g := held{job: job, roles: drawGang(t, job)}
			before, mark := m.Sum(), m.Mark()
			first, _ := m.Take(NewShape(g.job, g.roles))
			if m.Rollback(mark); m.Sum() != before {
				return fmt.Errorf("undoing %v left something", first)
			}
			if err := s.place(m, g, counted); err != nil {
				return err
			}
			if again := s.gangs; first != nil && (len(again) == 0 || fmt.Sprint(again[len(again)-1].at) != fmt.Sprint(first)) {
				return fmt.Errorf("the same question got another answer: %v, %v", first, again)
			}
		}
		if sabotage != nil {
			sabotage(m)
		} else if m.Sum() != s.build().Sum() {
			return fmt.Errorf("what was taken and given back one by one is not what is used in all")
		}
	}
	return nil
}

func TestTheLawsOfPlacement(t *testing.T) {
	counted := map[string]int{}
	for range 5 {
		rapid.Check(t, func(t *rapid.T) {
			if err := playSite(t, counted, nil); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, what := range []string{
		"stuck", "tolerated", "island", "apart", "apart from itself", "near", "fell back", "shared", "slots", "ended",
		"together on node", "together on rack", "together on zone",
	} {
		if counted[what] == 0 {
			t.Errorf("no world met %q: %v", what, counted)
		}
	}
}

func TestTheLawsOfPlacementCatchMutants(t *testing.T) {
	everyDevice := func(do func(d *Device)) func(m *Map) {
		return func(m *Map) {
			for i := range m.devices {
				do(&m.devices[i])
			}
		}
	}
	mutants := map[string]func(m *Map){
		"slots are forgotten": everyDevice(func(d *Device) { d.Slots = 0 }),
		"thousandths are forgotten": everyDevice(func(d *Device) {
			if d.layout == 0 && d.Milli > 0 {
				d.Milli = cluster.WholeGPU - 1
			}
		}),
		"memory is forgotten": everyDevice(func(d *Device) {
			if d.layout == 0 {
				d.Memory = d.CapMemory
			}
		}),
		"what is shared counts as whole": everyDevice(func(d *Device) {
			if d.layout == 0 && d.Milli > 0 {
				d.Milli, d.Memory = cluster.WholeGPU, d.CapMemory
			}
		}),
		"a slot begins anywhere": func(m *Map) {
			for _, l := range m.fixed.layouts {
				for i := range l.profiles {
					l.profiles[i].Starts = []int32{0, 1, 2, 3, 4, 5, 6, 7}[:9-l.profiles[i].Slices]
				}
			}
			clear(m.slots)
		},
		"taints are forgotten": func(m *Map) {
			for i := range m.fixed.kinds {
				m.fixed.kinds[i].taints = nil
			}
			for place := range m.nodes {
				m.nodes[place].guarded = false
			}
		},
		"all racks are one": func(m *Map) {
			for i := range m.fixed.kinds {
				if k := &m.fixed.kinds[i]; k.rack > 0 {
					k.rack = 1
				}
			}
		},
		"all islands are one": func(m *Map) {
			for i := range m.fixed.near {
				m.fixed.near[i].link = 1
			}
		},
		"who runs is forgotten": func(m *Map) {
			clear(m.tenants.byID)
			clear(m.tenants.byJob)
		},
	}
	for name, sabotage := range mutants {
		t.Run(name, func(t *testing.T) {
			draw := rapid.Custom(func(t *rapid.T) string {
				err := playSite(t, map[string]int{}, func(m *Map) {
					sabotage(m)
					clear(m.classes)
					clear(m.filters)
					for place := range m.nodes {
						m.countDevices(&m.nodes[place])
						m.touch(int32(place))
					}
				})
				if err != nil {
					return err.Error()
				}
				return ""
			})
			for seed := range 3000 {
				if err := draw.Example(seed); err != "" {
					t.Logf("caught by seed %d: %s", seed, err)
					return
				}
			}
			t.Error("no law catches it")
		})
	}
}
