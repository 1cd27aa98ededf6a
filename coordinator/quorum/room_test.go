package quorum

import (
	"strings"
	"testing"
)

// withRoom makes coordinators as members does, of whom those with a "-" are low on disk.
func withRoom(words string) []Member {
	list := members(words)
	for i, word := range strings.Fields(words) {
		if strings.Contains(word, "-") {
			list[i].Disk.Low = "the disk of /" + list[i].ID + " is low"
		}
		if strings.Contains(word, "<") {
			list[i].Behind = voteBehind + 1
		}
	}
	return list
}

func TestTheClusterTakesNothingNewWhenNoMajorityHasRoom(t *testing.T) {
	for words, low := range map[string]string{
		"a*":               "",
		"a*-":              "a",
		"a* b c":           "",
		"a*- b c":          "", // another will lead
		"a* b- c":          "",
		"a*- b- c":         "a b",
		"a*- b- c-":        "a b c",
		"a* b- c!":         "b", // two must store what is new, and one of these is low
		"a* b! c!":         "",  // it cannot decide anyhow, and no disk is why
		"a* b-? c":         "",
		"a* b- c- d e":     "",
		"a* b- c- d- e":    "b c d",
		"a* b- c! d e":     "",
		"a* b- c! d! e":    "b",
		"a* b? c-? d-? e-": "e", // two vote
	} {
		why := scarce(withRoom(words))
		var said []string
		for part := range strings.SplitSeq(why, "; ") {
			if part == "" {
				continue
			}
			id := strings.TrimPrefix(part, "coordinator ")[:1]
			said = append(said, id)
			if !strings.Contains(part, "the disk of /"+id+" is low") {
				t.Errorf("%s: it is said: %q", words, part)
			}
		}
		if got := strings.Join(said, " "); got != low {
			t.Errorf("%s: low are %q, not %q", words, got, low)
		}
	}
}

func TestALeaderWhoseDiskIsLowHandsOverToOneWithRoom(t *testing.T) {
	for words, next := range map[string]string{
		"a* b c":      "",
		"a*- b c":     "b",
		"a*- b- c":    "c",
		"a*- b! c":    "c",
		"a*- b? c":    "c",
		"a*- b< c":    "c",
		"a*- b- c-":   "",
		"a*- b< c!":   "",
		"a* b- c-":    "",
		"a- b- c":     "", // nobody leads
		"a*-":         "",
		"a*- b- c< d": "d",
	} {
		got, better := roomier(withRoom(words))
		if better != (next != "") || better && got.ID != next {
			t.Errorf("%s: %q %t, not %q", words, got.ID, better, next)
		}
	}
	if next, err := heir(withRoom("a* b- c"), ""); err != nil || next.ID != "c" {
		t.Errorf("handing over unasked goes to %q, %v", next.ID, err)
	}
	if next, err := heir(withRoom("a* b- c"), "b"); err != nil || next.ID != "b" {
		t.Errorf("who is named is passed over for %q, %v", next.ID, err)
	}
}
