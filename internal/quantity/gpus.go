package quantity

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// GPUs is a number of GPUs in thousandths: whole ones, or a fraction of one; in JSON a number such as 2
// or 0.25.
type GPUs int64

// Split is how many whole GPUs there are, or which part of one.
func (g GPUs) Split() (whole, milli int64) {
	if g > 0 && g < 1000 {
		return 0, int64(g)
	}
	return int64(g) / 1000, 0
}

// ParseGPUs reads "2" or "0.25".
func ParseGPUs(text string) (GPUs, error) {
	rest := strings.TrimSpace(text)
	amount, err := strconv.ParseFloat(rest, 64)
	if err != nil || strings.ContainsAny(rest, "xXpPnN_") {
		return 0, fmt.Errorf("%q is not a number of GPUs: write it like 2 or 0.25", clip(text))
	}
	milli := math.Round(amount * 1000)
	switch {
	case amount < 0 || amount > 1e6:
		return 0, fmt.Errorf("%s GPUs is out of range", clip(rest))
	case amount > 0 && milli == 0:
		return 0, fmt.Errorf("%s GPUs is less than a thousandth of one", clip(rest))
	case milli >= 1000 && (int64(milli)%1000 != 0 || amount*1000 != milli):
		return 0, fmt.Errorf("%s GPUs: ask for whole ones, or for a share of one, in thousandths", clip(rest))
	}
	return GPUs(milli), nil
}

// UnmarshalJSON reads a number, or a string.
func (g *GPUs) UnmarshalJSON(data []byte) error {
	text, _, err := textOrNumber(data, "a number of GPUs such as 2 or 0.25")
	if err != nil {
		return err
	}
	*g, err = ParseGPUs(text)
	return err
}

// MarshalJSON writes a number.
func (g GPUs) MarshalJSON() ([]byte, error) { return json.Marshal(float64(g) / 1000) }
