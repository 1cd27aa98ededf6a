package janitor

import (
	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/proto/wire"
)

// digestsNamed are the SHA-256 digests in whatever jobs at hand, their gangs, endpoints and versions of models say: among them are
// those of the uploads that they name, however their addresses are written.
func digestsNamed(snapshot *state.Snapshot) map[string]bool {
	named := map[string]bool{}
	for job := range snapshot.Jobs("") {
		digestsIn(job.Spec, named)
		for _, pin := range job.Models {
			digestsIn([]byte(pin.URI), named)
		}
	}
	whole := func(m proto.Message) {
		text, err := proto.Marshal(m)
		if err != nil {
			panic(err) // it was stored in this form
		}
		digestsIn(text, named)
	}
	for job := range snapshot.Unended() {
		for gang := range snapshot.GangsOf(job.Name) {
			whole(wire.GangToProto(gang))
		}
	}
	for endpoint := range snapshot.Endpoints() {
		whole(wire.EndpointToProto(endpoint))
	}
	for model := range snapshot.Models("") {
		for version := range snapshot.VersionsOf(model.Name, 0) {
			whole(wire.ModelVersionToProto(version))
		}
	}
	return named
}

// digestsIn finds every run of just 64 hexadecimal digits.
func digestsIn(text []byte, named map[string]bool) {
	run := 0
	for i := 0; i <= len(text); i++ {
		if i < len(text) && isHex(text[i]) {
			run++
			continue
		}
		if run == 64 { // an address has a slash before and behind it
			named[string(text[i-run:i])] = true
		}
		run = 0
	}
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }
