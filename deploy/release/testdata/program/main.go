// Command program stands for clary where its bundle is tested.
package main

import (
	"fmt"

	"github.com/spf13/pflag"
)

func main() {
	pflag.Bool("version", false, "")
	pflag.Parse()
	fmt.Println("completion of clary version v0-test")
}
