package main

import (
	"os"
	"runtime/pprof"

	"github.com/spf13/cobra"
)

// profile is --cpuprofile, which every command has: where its time goes, for go tool
// pprof. It is for those who work on Clary, so help does not list it.
type profile struct {
	path string
	file *os.File
}

func (p *profile) addTo(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVar(&p.path, "cpuprofile", "", "write a CPU profile of this process to a file")
	_ = flags.MarkHidden("cpuprofile")
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return p.start() }
}

func (p *profile) start() error {
	if p.path == "" {
		return nil
	}
	var err error
	if p.file, err = os.Create(p.path); err != nil {
		return err
	}
	return pprof.StartCPUProfile(p.file)
}

// stop completes the profile, if there is one.
func (p *profile) stop() error {
	if p.file == nil {
		return nil
	}
	pprof.StopCPUProfile()
	err := p.file.Close()
	p.file = nil
	return err
}
