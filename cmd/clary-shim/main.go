// Clary-shim is the parent of one task's process. An agent starts it as
//
//	clary-shim FOLDER
//
// with the folder's lock as file descriptor 3, a pipe for the first news as 4 and one with
// the task's secrets as 5. Until it has told them what it says on stderr goes to the same pipe, since
// a file may be on a disk that is full; after that it goes where its stdout is.
// Everything it does is in package shim.
package main

import (
	"os"
	"syscall"

	"github.com/clary-ml/clary/agent/runtime/shim"
)

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == shim.InsideArgument:
		shim.Inside()
	case len(os.Args) == 2 && os.Args[1] == shim.TryArgument:
		if err := shim.Try(); err != nil {
			fail(err.Error())
		}
		return
	case len(os.Args) != 2:
		fail("usage: clary-shim FOLDER (it is started by clary agent, not by people)")
	}
	// The lock stays open, and is released by the kernel when this process is gone.
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)
	syscall.CloseOnExec(5)
	ready := os.NewFile(4, "ready")
	if err := shim.Run(shim.Options{Dir: os.Args[1], Ready: ready, Secrets: os.NewFile(5, "secrets")}); err != nil {
		if _, told := ready.WriteString(err.Error()); told != nil { // the task ran
			fail(err.Error())
		}
		os.Exit(shim.Failed)
	}
}

func fail(text string) {
	_, _ = os.Stderr.WriteString("clary-shim: " + text + "\n")
	os.Exit(shim.Failed)
}
