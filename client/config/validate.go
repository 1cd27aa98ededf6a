package config

import (
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/cluster"
)

// Validate reports every mistake in the context.
func (c Context) Validate() cluster.Problems {
	var p cluster.Problems
	if len(c.Addresses) == 0 {
		p.Add("addresses", "there is none: name a coordinator's host:port")
	}
	for i, address := range c.Addresses {
		host, port, err := net.SplitHostPort(address)
		number, portErr := strconv.Atoi(port)
		if err != nil || host == "" || portErr != nil || number < 1 || number > 65535 {
			p.Add(fmt.Sprintf("addresses[%d]", i), "%q is not host:port", cluster.Clip(address))
		}
	}
	digest, found := strings.CutPrefix(c.CAPin, "sha256:")
	if sum, err := hex.DecodeString(digest); !found || err != nil || len(sum) != 32 {
		p.Add("ca_pin", "%q is not sha256: and 64 hex digits; a coordinator prints it when it starts, and `clary context` shows it where you are logged in", cluster.Clip(c.CAPin))
	}
	if strings.ContainsAny(c.Token, " \t\r\n") || len(c.Token) > 1024 {
		p.Add("token", "has white space in it or is longer than 1024 bytes: copy it whole, without its line end")
	}
	return p
}
