package rpc

import (
	"strings"
	"testing"
)

// While disks are full, what is new is refused; what makes room, what goes on and what operators do is not. A method that nobody
// thought of is refused if users change something by it.
func TestWhatBeginsSomethingNewIsTold(t *testing.T) {
	begin := map[string]bool{}
	for method := range needs {
		if begins(method) {
			begin[strings.TrimPrefix(method, "/clary.v1.")] = true
		}
	}
	for _, is := range []string{"Jobs/Submit", "Jobs/Release", "Objects/Put", "Secrets/Set", "Sweeps/AddTrial", "Sweeps/Ask", "Models/Register", "Endpoints/Update"} {
		if !begin[is] {
			t.Errorf("%s is taken", is)
		}
	}
	for _, not := range []string{
		"Jobs/Get", "Jobs/Logs", "Jobs/Cancel", "Jobs/Delete", "Objects/Get", "Objects/Delete", "Sweeps/Tell", "Hands/Exec", "Settings/Edit", "Settings/Sweep", "Nodes/Drain",
		"Admin/Join", "Admin/CreateToken", "Admin/RevokeToken", "Cluster/Remove", "Cluster/Transfer", "Keys/Revoke", "AgentLink/Connect", "Peer/Propose",
	} {
		if begin[not] {
			t.Errorf("%s is refused", not)
		}
	}
}
