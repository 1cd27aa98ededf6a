package device_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/agent/device"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

func TestSimulatedGPUsAreAsDeclared(t *testing.T) {
	s, err := device.ParseSimulated("node-1", "2xH100-80GB, 4xT4")
	if err != nil {
		t.Fatal(err)
	}
	devices, err := s.Devices(t.Context())
	if err != nil || len(devices) != 6 {
		t.Fatalf("%d devices, %v", len(devices), err)
	}
	if d := devices[0]; d.Model != "H100-80GB" || d.Memory != 80<<30 || !d.Simulated || !d.Healthy || d.Kind != cluster.DeviceGPU {
		t.Errorf("the first is %+v", d)
	}
	if d := devices[5]; d.Model != "T4" || d.Memory != 16<<30 {
		t.Errorf("the last is %+v", d)
	}
	node := cluster.Node{ID: "node-1", Address: "10.0.0.1", State: cluster.NodeReady, Devices: devices}
	if err := node.Validate().Err(); err != nil {
		t.Errorf("the devices do not make a valid node: %v", err)
	}
}

func TestSimulatedGPUsStandAndAreCutAsDeclared(t *testing.T) {
	s, err := device.ParseSimulated("n", "4xH100:nvlink=2:numa=4,2xA100-40GB:mig")
	if err != nil {
		t.Fatal(err)
	}
	devices, _ := s.Devices(t.Context())
	node := cluster.Node{ID: "n", Address: "10.0.0.1", State: cluster.NodeReady, Devices: devices}
	if err := node.Validate().Err(); err != nil {
		t.Fatal(err)
	}
	if devices[1].Link != 1 || devices[2].Link != 2 || devices[3].NUMA != 1 || devices[0].Partitioned || devices[0].Speed != 3170 {
		t.Errorf("%+v", devices[:4])
	}
	cut := devices[4]
	if p, ok := cut.Profile("3g.20gb"); !cut.Partitioned || !ok || p.Slices != 4 || !p.MayBegin(4) || p.MayBegin(1) || cut.Link != 0 {
		t.Errorf("%+v", cut)
	}
	one, err := s.Slot(t.Context(), cluster.DeviceShare{UUID: cut.UUID, Profile: "1g.5gb", Start: 6})
	other, err2 := s.Slot(t.Context(), cluster.DeviceShare{UUID: cut.UUID, Profile: "1g.5gb", Start: 5})
	if err != nil || err2 != nil || one == other || !strings.HasPrefix(one, "MIG-") {
		t.Errorf("slots %q %q, %v, %v", one, other, err, err2)
	}
	if name, err := s.Slot(t.Context(), cluster.DeviceShare{UUID: cut.UUID, Profile: "3g.20gb", Start: 1}); err == nil {
		t.Errorf("a slot that cannot be is %q", name)
	}
}

func TestEachModelHasIslandsOfItsOwn(t *testing.T) {
	s, err := device.ParseSimulated("n", "2xT4:nvlink=2,1xL4,4xA100:nvlink=4:numa=4,3xV100:nvlink=2:numa=2")
	if err != nil {
		t.Fatal(err)
	}
	devices, _ := s.Devices(t.Context())
	var links, numas []int32
	for _, d := range devices {
		links, numas = append(links, d.Link), append(numas, d.NUMA)
	}
	if want := []int32{1, 1, 0, 2, 2, 2, 2, 3, 3, 4}; !slices.Equal(links, want) {
		t.Errorf("islands %v, want %v", links, want)
	}
	if want := []int32{0, 0, 0, 1, 1, 1, 1, 2, 2, 3}; !slices.Equal(numas, want) {
		t.Errorf("NUMA nodes %v, want %v", numas, want)
	}
}

func TestSimulatedUUIDsAreStableAndDifferBetweenNodes(t *testing.T) {
	uuids := func(node string) []string {
		s, err := device.ParseSimulated(node, "8xA100")
		if err != nil {
			t.Fatal(err)
		}
		devices, _ := s.Devices(t.Context())
		var all []string
		for _, d := range devices {
			all = append(all, d.UUID)
		}
		return all
	}
	if !slices.Equal(uuids("a"), uuids("a")) {
		t.Error("a node's UUIDs change from start to start")
	}
	all := append(uuids("a"), uuids("b")...)
	slices.Sort(all)
	if len(slices.Compact(all)) != 16 {
		t.Error("UUIDs of two nodes collide")
	}
}

func TestRubbishDeclarationsAreRefusedWithTheRemedy(t *testing.T) {
	for _, text := range []string{"", "A100", "0xA100", "-1xA100", "8xA100,", "8x", "xT4", "2xRTX9999", "2xT4:mig", "2xA100:", "2xA100:fast", "2xA100:nvlink", "2xA100:numa=0", "2xA100:nvlink=-1", "99999xA100", "1000xT4,1000xT4", strings.Repeat("1xT4 ", 999)} {
		_, err := device.ParseSimulated("n", text)
		if !fault.Is(err, fault.Invalid) || len(err.Error()) > 400 {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func FuzzParseSimulated(f *testing.F) {
	f.Add("8xA100")
	f.Add("2xH100-80GB,4xT4")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := device.ParseSimulated("n", text)
		if (s == nil) == (err == nil) {
			t.Errorf("%q: %v, %v", text, s, err)
		}
		if err == nil {
			if devices, _ := s.Devices(t.Context()); len(devices) == 0 || len(devices) > cluster.MaxGPUs {
				t.Errorf("%q makes %d devices", text, len(devices))
			}
		}
	})
}
