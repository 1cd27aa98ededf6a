package keyring_test

import (
	"bytes"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

func stepped(t *testing.T, k *keyring.Keyring, what cluster.Rotation, steps ...cluster.Phase) *keyring.Keyring {
	t.Helper()
	for _, step := range steps {
		next, err := k.Step(what, step, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		text, err := next.Marshal() // each is written down and read again
		if err != nil {
			t.Fatal(err)
		}
		if k, err = keyring.Unmarshal(text); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func TestTwoNeighboursInARotationAlwaysUnderstandOneAnother(t *testing.T) {
	first, err := keyring.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k := first
	for _, step := range []cluster.Phase{cluster.PhaseAdd, cluster.PhaseUse, cluster.StepDrop} {
		before := k
		k = stepped(t, k, cluster.RotateData, step)
		k = stepped(t, k, cluster.RotateGossip, step)
		k = stepped(t, k, cluster.RotateCA, step)
		for name, pair := range map[string][2]*keyring.Keyring{"newer": {before, k}, "older": {k, before}} {
			sealed, err := pair[0].Seal([]byte("value"), "c")
			if err != nil {
				t.Fatal(err)
			}
			if opened, err := pair[1].Open(sealed, "c"); err != nil || string(opened) != "value" {
				t.Errorf("%s: what the %s one does not open: %v", step, name, err)
			}
			understood := false
			for _, key := range pair[1].GossipKeys {
				understood = understood || bytes.Equal(key, pair[0].GossipKeys[0])
			}
			trusted := false
			for _, ca := range pair[1].CAs() {
				trusted = trusted || ca.Equal(pair[0].Authority.Certificate())
			}
			if !understood || !trusted {
				t.Errorf("%s: the %s one speaks what the other does not understand (%v), or signs what it does not trust (%v)", step, name, understood, trusted)
			}
		}
	}
	sealed, err := first.Seal([]byte("value"), "c")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Open(sealed, "c"); !fault.Is(err, fault.Invalid) {
		t.Errorf("the key that was dropped still opens: %v", err)
	}
	if k.Authority.Pin() == first.Authority.Pin() || len(k.CAs()) != 1 || len(k.Links) != 0 || len(k.GossipKeys) != 1 || bytes.Equal(k.GossipKeys[0], first.GossipKeys[0]) {
		t.Error("what was rotated is not new, or the old one is still there")
	}
	if !bytes.Equal(k.DataKey, first.DataKey) || k.ObjectSecret != first.ObjectSecret {
		t.Error("what was not rotated has changed")
	}
}

func TestARotationThatIsCancelledLeavesEverythingAsItWas(t *testing.T) {
	first, err := keyring.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []cluster.Rotation{cluster.RotateCA, cluster.RotateGossip, cluster.RotateData} {
		k := stepped(t, first, what, cluster.PhaseAdd, cluster.StepAbort)
		sealed, _ := first.Seal([]byte("value"), "c")
		if k.Authority.Pin() != first.Authority.Pin() || !bytes.Equal(k.GossipKeys[0], first.GossipKeys[0]) || len(k.CAs())+len(k.GossipKeys)+len(k.SealKeys) != 3 || !k.Newest(sealed, "c") {
			t.Errorf("%s: it is another keyring", what)
		}
	}
}

// No order of steps leaves a keyring without a key, or with more than two.
func TestStepsInAnyOrderAreTakenOrRefused(t *testing.T) {
	first, err := keyring.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		k, taken, refused := first, 0, 0
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			what := rapid.SampledFrom([]cluster.Rotation{cluster.RotateGossip, cluster.RotateData}).Draw(rt, "what")
			step := rapid.SampledFrom([]cluster.Phase{cluster.PhaseAdd, cluster.PhaseUse, cluster.StepDrop, cluster.StepAbort}).Draw(rt, "step")
			next, err := k.Step(what, step, time.Now())
			if err != nil {
				refused++
				continue
			}
			taken++
			if next.ID == k.ID {
				rt.Fatal("two keyrings have one ID")
			}
			k = next
			if n := len(k.GossipKeys); n < 1 || n > 2 {
				rt.Fatalf("%d gossip keys", n)
			}
			if n := len(k.SealKeys); n < 1 || n > 2 {
				rt.Fatalf("%d sealing keys", n)
			}
		}
		if taken+refused == 0 {
			rt.Fatal("nothing was tried")
		}
	})
}
