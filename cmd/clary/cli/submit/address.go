// Package submit has what several commands that submit jobs share: flags of what a job asks for, how it is sent, watched and told of.
package submit

import (
	"errors"
	"regexp"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// namedAddress is NAME=ADDRESS; what else holds a '=' is an address whose name has one.
var namedAddress = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}=`)

// Addresses reads flags that are an address, or NAME=ADDRESS. One without a name gets the only
// one's.
func Addresses(flag, only string, texts []string) (map[string]string, error) {
	found := map[string]string{}
	for _, text := range texts {
		name, address := only, text
		if namedAddress.MatchString(text) {
			name, address, _ = strings.Cut(text, "=")
		} else if text == "" {
			return nil, fault.New(fault.Invalid, "%s: it is empty: name an address", flag)
		}
		if _, twice := found[name]; twice {
			return nil, fault.New(fault.Invalid, "%s: %q is there twice: name each, as NAME=%s", flag, name, cluster.Clip(address))
		}
		found[name] = address
	}
	return found, nil
}

// ErrUnknownOption is what set answers to Options about a key that it does not know.
var ErrUnknownOption = errors.New("unknown")

// Options reads flags like NAME=OPTION,KEY:VALUE,... .
func Options(flag string, texts []string, set func(name, key, value string) error) error {
	for _, text := range texts {
		name, list, _ := strings.Cut(text, "=")
		for option := range strings.SplitSeq(list, ",") {
			key, value, _ := strings.Cut(option, ":")
			err := set(name, key, value)
			if errors.Is(err, ErrUnknownOption) {
				return fault.New(fault.Invalid, "%s: %q is no option: see clary process --help", flag, cluster.Clip(option))
			}
			if err != nil {
				return fault.New(fault.Invalid, "%s: %w", flag, err)
			}
		}
	}
	return nil
}
