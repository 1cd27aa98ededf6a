package submit

import (
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/clary-ml/clary/internal/fault"
)

// TaskRange is a flag that says how many tasks there are: "4", or "2..8" of an elastic job, whose least
// is 0 if there is no range.
type TaskRange struct{ Least, Most int32 }

// Register adds the flag; it is 1 if it is left out.
func (r *TaskRange) Register(flags *pflag.FlagSet, name, short, help string) {
	r.Most = 1
	flags.VarP(r, name, short, help)
}

// Set implements pflag.Value.
func (r *TaskRange) Set(text string) error {
	low, high, isRange := strings.Cut(text, "..")
	least, err := strconv.ParseInt(low, 10, 32)
	most := least
	if err == nil && isRange {
		most, err = strconv.ParseInt(high, 10, 32)
	}
	if err != nil || least < 1 || most < least {
		return fault.New(fault.Invalid, "give a number from 1, or MIN..MAX such as 2..8")
	}
	if *r = (TaskRange{Most: int32(most)}); isRange {
		r.Least = int32(least)
	}
	return nil
}

// String implements pflag.Value.
func (r *TaskRange) String() string {
	if r.Least == 0 {
		return strconv.Itoa(int(r.Most))
	}
	return strconv.Itoa(int(r.Least)) + ".." + strconv.Itoa(int(r.Most))
}

// Type implements pflag.Value.
func (r *TaskRange) Type() string { return "N|MIN..MAX" }
