package contract

import (
	"net"
	"strings"

	"github.com/clary-ml/clary/cluster"
)

// rendezvous are the variables by which the tasks of a role find each other, by framework.
// A new framework is one function here: it sees every task's address, and its own place
// among them. The task starts when all are ready to, so that nobody is waited for in vain.
var rendezvous = map[cluster.Framework]func(Task) map[string]string{
	cluster.FrameworkHosts: Task.hosts,
	cluster.FrameworkTorch: Task.torch,
}

// hosts is for any framework: who there is, and who this is.
func (t Task) hosts() map[string]string {
	peers := t.peers()
	return map[string]string{
		"CLARY_HOSTS": strings.Join(peers, ","), "CLARY_ADDRESS": peers[t.Task.Index],
		"CLARY_RANK": number(t.Task.Index), "CLARY_WORLD_SIZE": number(int32(len(peers))),
	}
}

// torch is what torch.distributed reads with init_method env://, and, as PET_..., what
// torchrun reads in place of its flags: so both `python train.py` and `torchrun train.py`
// run unchanged. One process per task; torchrun starts more if the program says so.
func (t Task) torch() map[string]string {
	env := t.hosts()
	peers := t.peers()
	host, port, err := net.SplitHostPort(peers[0])
	if err != nil {
		host, port = peers[0], "29500"
	}
	rank, size := number(t.Task.Index), number(int32(len(peers)))
	for name, value := range map[string]string{
		"MASTER_ADDR": host, "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": size,
		"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "NODE_RANK": rank, "GROUP_RANK": rank,
		"PET_NNODES": size, "PET_NODE_RANK": rank, "PET_MASTER_ADDR": host, "PET_MASTER_PORT": port,
		"GLOO_SOCKET_IFNAME": t.Interface, "NCCL_SOCKET_IFNAME": t.Interface, "TP_SOCKET_IFNAME": t.Interface,
	} {
		if value != "" {
			env[name] = value
		}
	}
	return env
}
