// Package quantity reads and writes amounts as people write them in a job file:
// durations as "1h30m", sizes as "512MiB", cores as 0.5. Each type is a plain number
// in the unit that package cluster uses, so that converting needs no arithmetic.
package quantity

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a span of time: in JSON a string such as "1h30m", "90s" or "2d", or a
// number of seconds.
type Duration time.Duration

// Bytes is an amount of memory or disk: in JSON a string such as "512MiB", "1.5GiB"
// or "2GB", or a number of bytes.
type Bytes int64

// Cores is a number of processor cores in thousandths: in JSON a number such as 2 or
// 0.5, or a string such as "500m".
type Cores int64

// Std returns the duration as package time knows it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// ParseDuration reads "1h30m", "90s", "2d" or "1d12h".
func ParseDuration(text string) (Duration, error) {
	const remedy = "%q is not a duration: write it like \"90s\", \"1h30m\" or \"2d\""
	rest, days := strings.TrimSpace(text), time.Duration(0)
	if head, tail, ok := strings.Cut(rest, "d"); ok {
		n, err := strconv.ParseUint(head, 10, 16)
		if err != nil {
			return 0, fmt.Errorf(remedy, clip(text))
		}
		days, rest = time.Duration(n)*24*time.Hour, tail
		if rest == "" {
			return Duration(days), nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || days+d < days && d > 0 || days > 0 && d < 0 {
		return 0, fmt.Errorf(remedy, clip(text))
	}
	return Duration(days + d), nil
}

// UnmarshalJSON reads a string or a number of seconds.
func (d *Duration) UnmarshalJSON(data []byte) error {
	text, number, err := textOrNumber(data, "a duration: a string such as \"1h30m\" or a number of seconds")
	switch {
	case err != nil:
		return err
	case number:
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || math.Abs(seconds) > 1e9 {
			return fmt.Errorf("%s seconds is out of range", clip(text))
		}
		*d = Duration(math.Round(seconds * float64(time.Second)))
		return nil
	}
	*d, err = ParseDuration(text)
	return err
}

// MarshalJSON writes a string that UnmarshalJSON reads.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// String reads like "1h30m0s".
func (d Duration) String() string { return time.Duration(d).String() }

var units = []struct {
	name string
	size float64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"PiB", 1 << 50},
	{"KB", 1e3},
	{"kB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"PB", 1e15},
	{"Ki", 1 << 10},
	{"Mi", 1 << 20},
	{"Gi", 1 << 30},
	{"Ti", 1 << 40},
	{"B", 1},
}

// ParseBytes reads "512MiB", "1.5 GiB", "2GB" (decimal) or "1048576".
func ParseBytes(text string) (Bytes, error) {
	rest, size := strings.TrimSpace(text), 1.0
	for _, unit := range units {
		if head, ok := strings.CutSuffix(rest, unit.name); ok {
			rest, size = strings.TrimSpace(head), unit.size
			break
		}
	}
	amount, err := strconv.ParseFloat(rest, 64)
	if err != nil || strings.ContainsAny(rest, "xXpPnN_") {
		return 0, fmt.Errorf("%q is not a size: write it like \"512MiB\", \"1.5GiB\" or \"2GB\"", clip(text))
	}
	if math.Abs(amount*size) >= 1<<62 {
		return 0, fmt.Errorf("%q is out of range", clip(text))
	}
	return Bytes(math.Round(amount * size)), nil
}

// UnmarshalJSON reads a string or a number of bytes.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	text, _, err := textOrNumber(data, "a size: a string such as \"512MiB\" or a number of bytes")
	if err != nil {
		return err
	}
	*b, err = ParseBytes(text)
	return err
}

// MarshalJSON writes a string that UnmarshalJSON reads, in the largest unit that is exact.
func (b Bytes) MarshalJSON() ([]byte, error) { return json.Marshal(b.String()) }

// String reads like "512MiB": a whole number in the largest unit that is exact.
func (b Bytes) String() string {
	names := []string{"", "KiB", "MiB", "GiB", "TiB", "PiB"}
	n, unit := int64(b), 0
	for n != 0 && n%1024 == 0 && unit < len(names)-1 {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatInt(n, 10) + names[unit]
}

// ParseCores reads "2", "0.5" or "500m".
func ParseCores(text string) (Cores, error) {
	rest, scale := strings.TrimSpace(text), 1000.0
	if head, ok := strings.CutSuffix(rest, "m"); ok {
		rest, scale = head, 1
	}
	amount, err := strconv.ParseFloat(rest, 64)
	if err != nil || strings.ContainsAny(rest, "xXpPnN_") {
		return 0, fmt.Errorf("%q is not a number of cores: write it like 2, 0.5 or \"500m\"", clip(text))
	}
	if math.Abs(amount) > 1e9 {
		return 0, fmt.Errorf("%s cores is out of range", clip(text))
	}
	milli := math.Round(amount * scale)
	if amount > 0 && milli == 0 {
		return 0, fmt.Errorf("%s cores is less than a thousandth of a core", clip(text))
	}
	return Cores(milli), nil
}

// UnmarshalJSON reads a number of cores, or a string.
func (c *Cores) UnmarshalJSON(data []byte) error {
	text, _, err := textOrNumber(data, "a number of cores such as 2 or 0.5")
	if err != nil {
		return err
	}
	*c, err = ParseCores(text)
	return err
}

// MarshalJSON writes a number of cores.
func (c Cores) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(c)/1000, 'f', -1, 64), nil
}

// textOrNumber returns a JSON string's text or a JSON number's digits.
func textOrNumber(data []byte, what string) (text string, number bool, err error) {
	var value any
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return "", false, errors.New("is not JSON")
	}
	switch value := value.(type) {
	case string:
		return value, false, nil
	case json.Number:
		return value.String(), true, nil
	}
	return "", false, fmt.Errorf("takes %s", what)
}

func clip(text string) string {
	if len(text) > 40 {
		return strings.ToValidUTF8(text[:40], "") + "..."
	}
	return text
}
