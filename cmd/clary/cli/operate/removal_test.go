package operate

import (
	"fmt"
	"strings"
	"testing"
)

// Whoever removes a stolen machine and leaves it at that has not shut it out.
func TestWhoTakesAMachineOutIsToldHowAStolenOneIsShutOut(t *testing.T) {
	if said := removed("c"); !strings.Contains(said, "delete its data folder") || !strings.Contains(said, "clary nodes revoke c --coordinator") || !strings.Contains(said, "clary keys rotate") {
		t.Errorf("of a coordinator: %s", said)
	}
	if said := fmt.Sprintf(forgotten, "n1"); !strings.Contains(said, "n1 is forgotten") || !strings.Contains(said, "clary nodes revoke n1") {
		t.Errorf("of a node: %s", said)
	}
}
