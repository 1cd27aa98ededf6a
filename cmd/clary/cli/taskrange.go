package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/clary-ml/clary/internal/fault"
)

// taskRange is a flag that says how many tasks there are: "4", or "2..8" of an elastic job, whose least
// is 0 if there is no range.
type taskRange struct{ least, most int32 }

// register adds the flag; it is 1 if it is left out.
func (r *taskRange) register(flags *pflag.FlagSet, name, short, help string) {
	r.most = 1
	flags.VarP(r, name, short, help)
}

// Set implements pflag.Value.
func (r *taskRange) Set(text string) error {
	low, high, isRange := strings.Cut(text, "..")
	least, err := strconv.ParseInt(low, 10, 32)
	most := least
	if err == nil && isRange {
		most, err = strconv.ParseInt(high, 10, 32)
	}
	if err != nil || least < 1 || most < least {
		return fault.New(fault.Invalid, "give a number from 1, or MIN..MAX such as 2..8")
	}
	if *r = (taskRange{most: int32(most)}); isRange {
		r.least = int32(least)
	}
	return nil
}

// String implements pflag.Value.
func (r *taskRange) String() string {
	if r.least == 0 {
		return strconv.Itoa(int(r.most))
	}
	return strconv.Itoa(int(r.least)) + ".." + strconv.Itoa(int(r.most))
}

// Type implements pflag.Value.
func (r *taskRange) Type() string { return "N|MIN..MAX" }
