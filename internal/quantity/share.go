package quantity

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Share is a part of a whole, from 0 to 1: in JSON a number such as 0.1, or a string such as "10%".
type Share float64

// ParseShare reads "10%", "0.5 %" or "0.1". Whether it is from 0 to 1 is for whoever uses it.
func ParseShare(text string) (Share, error) {
	rest, percent := strings.CutSuffix(strings.TrimSpace(text), "%")
	amount, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
	if err != nil || strings.ContainsAny(rest, "xXpPnN_") {
		return 0, fmt.Errorf("%q is not a share: write it like 0.1 or \"10%%\"", clip(text))
	}
	if percent {
		amount /= 100
	}
	return Share(amount), nil
}

// UnmarshalJSON reads a number, or a string.
func (s *Share) UnmarshalJSON(data []byte) error {
	text, _, err := textOrNumber(data, "a share: a number such as 0.1, or a string such as \"10%\"")
	if err != nil {
		return err
	}
	*s, err = ParseShare(text)
	return err
}

// MarshalJSON writes a number.
func (s Share) MarshalJSON() ([]byte, error) { return json.Marshal(float64(s)) }

// String reads like "10%".
func (s Share) String() string { return strconv.FormatFloat(float64(s)*100, 'g', 4, 64) + "%" }
