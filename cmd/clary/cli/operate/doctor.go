package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/doctor"
)

// askTime is how long one coordinator may take to answer the doctor.
const askTime = 3 * time.Second

func (a app) doctorCommand() *cobra.Command {
	var folders []string
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Examine this machine and the cluster, and say what to do about what is wrong",
		Long: "Examine this machine, with or without a cluster: kernel, cgroups, namespaces, clock, disks, how long a write takes,\n" +
			"certificates, ports and GPUs; and the cluster of the context, if there is one: each coordinator, clocks, quorum, versions\n" +
			"and nodes. Nothing is changed. It exits with 1 if something does not work.",
		Example: "  clary doctor\n  clary doctor --data /srv/clary\n  clary doctor -o json",
		Args:    shell.Takes(),
	}
	command.Flags().StringArrayVar(&folders, "data", nil, "data folder of a coordinator or agent of this machine (default: those of /var/lib/clary that are there)")
	command.RunE = func(command *cobra.Command, _ []string) error {
		if err := a.CheckFormat(); err != nil {
			return err
		}
		if len(folders) == 0 {
			folders = usualFolders()
		}
		found := doctor.Examine(command.Context(), doctor.System(folders, a.askCluster))
		err := a.Print(found, func(out io.Writer) error {
			rows := make([][]string, len(found))
			for i, f := range found {
				rows[i] = []string{string(f.Level), f.Check, f.Text}
			}
			if err := shell.Table(out, []string{"", "check", "finding"}, rows); err != nil {
				return err
			}
			for _, f := range found {
				if f.Remedy != "" {
					fmt.Fprintf(out, "\n%s, %s: %s\n  -> %s\n", f.Level, f.Check, shell.OneLine(f.Text), f.Remedy)
				}
			}
			return nil
		})
		if err == nil && doctor.Failed(found) {
			err = shell.ExitWith(shell.ExitFailed, errors.New("something does not work"))
		}
		return err
	}
	return command
}

// usualFolders are the data folders that commands take if none is named.
func usualFolders() []string {
	var there []string
	for _, folder := range []string{"/var/lib/clary/coordinator", "/var/lib/clary/agent", "/var/lib/clary-dev/server", "/var/lib/clary-dev/agent"} {
		if info, err := os.Stat(folder); err == nil && info.IsDir() {
			there = append(there, folder)
		}
	}
	if len(there) == 0 {
		there = []string{os.TempDir()} // the disk of the machine, at least
	}
	return there
}

// askCluster asks each coordinator of the context by itself. Without a context there is nobody to ask.
func (a app) askCluster(ctx context.Context) (*doctor.ClusterAnswers, error) {
	path, err := config.Path(a.Getenv)
	if err != nil {
		return nil, err
	}
	file, err := config.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(file.Names()) == 0 && a.ContextName == "" && a.Getenv("CLARY_TOKEN") == "" {
		return nil, nil
	}
	to, err := file.Resolve(a.ContextName, a.Getenv)
	if err != nil {
		return nil, err
	}
	answers := &doctor.ClusterAnswers{}
	asked := map[string]bool{}
	addresses := to.Addresses
	voters, names := map[string]bool{}, map[string]string{} // by ID, and IDs by address
	for len(addresses) > 0 {                                // what they tell of one another is asked too
		var next []string
		for i, told := range askAll(ctx, to, addresses) {
			asked[addresses[i]] = true
			answers.Coordinators = append(answers.Coordinators, told.CoordinatorAnswer)
			for _, m := range told.info.Coordinators {
				voters[m.ID], names[m.Address] = m.Voter, m.ID
				if !asked[m.Address] {
					asked[m.Address] = true
					next = append(next, m.Address)
				}
			}
		}
		addresses = next
	}
	settle(answers, voters, names)
	answers.Nodes, answers.NodesErr = a.nodesFor(ctx, to)
	answers.Backups = backupsFor(ctx, to)
	return answers, nil
}

// backupsFor is what there is of backups, for whom that may be told.
func backupsFor(ctx context.Context, to config.Context) *doctor.BackupsAnswer {
	c, err := client.Dial(to, client.WithPatience(askTime))
	if err != nil {
		return nil
	}
	defer c.Close()
	found, err := c.Backups(ctx)
	if err != nil { // who may not ask, or there is nobody to ask: that is for other checks to say
		return nil
	}
	answer := &doctor.BackupsAnswer{Every: found.Every, Failed: found.Failed}
	if len(found.List) > 0 {
		answer.Newest = found.List[0].Made
	}
	return answer
}

// settle keeps one answer of each coordinator, since one may have been asked at two addresses, and says who votes.
func settle(answers *doctor.ClusterAnswers, voters map[string]bool, names map[string]string) {
	seen := map[string]bool{}
	var kept []doctor.CoordinatorAnswer
	for _, well := range []bool{true, false} { // an answer counts more than the silence of another address
		for _, c := range answers.Coordinators {
			if c.ID == "" {
				c.ID = cmp.Or(names[c.Address], c.Address)
			}
			if (c.Err == nil) != well || seen[c.ID] {
				continue
			}
			seen[c.ID] = true
			c.Voter = len(voters) == 0 || voters[c.ID]
			kept = append(kept, c)
		}
	}
	answers.Coordinators = kept
}

type toldInfo struct {
	doctor.CoordinatorAnswer
	info client.Info
}

// askAll asks coordinators at the same time.
func askAll(ctx context.Context, to config.Context, addresses []string) []toldInfo {
	told := make([]toldInfo, len(addresses))
	var all sync.WaitGroup
	for i, address := range addresses {
		all.Go(func() { told[i] = askOne(ctx, to, address) })
	}
	all.Wait()
	return told
}

func askOne(ctx context.Context, to config.Context, address string) toldInfo {
	told := toldInfo{CoordinatorAnswer: doctor.CoordinatorAnswer{Address: address}}
	to.Addresses = []string{address}
	c, err := client.Dial(to, client.WithPatience(askTime))
	if err != nil {
		told.Err = err
		return told
	}
	defer c.Close()
	if told.info, told.Err = c.Info(ctx); told.Err != nil { // the first answer has the handshake in it
		return told
	}
	begun := time.Now()
	info, err := c.Info(ctx)
	if err != nil {
		told.Err = err
		return told
	}
	told.Round = time.Since(begun)
	told.ID, told.Version, told.Leader = info.ID, info.Version, info.Leader
	if !info.Now.IsZero() {
		told.Clock, told.Skew = true, info.Now.Sub(begun.Add(told.Round/2))
	}
	return told
}

// nodesFor lists the nodes, from any coordinator that has them.
func (a app) nodesFor(ctx context.Context, to config.Context) ([]cluster.Node, error) {
	c, err := client.Dial(to, client.WithPatience(askTime))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	views, err := c.Nodes(ctx, client.ReadOption(true))
	nodes := make([]cluster.Node, len(views))
	for i, view := range views {
		nodes[i] = view.Node
	}
	return nodes, err
}
