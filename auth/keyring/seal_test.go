package keyring_test

import (
	"bytes"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/internal/fault"
)

func TestWhatIsSealedOpensOnlyWithItsKeyAndContext(t *testing.T) {
	make := func() *keyring.Keyring {
		k, err := keyring.New("clary", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	one, other := make(), make()
	rapid.Check(t, func(rt *rapid.T) {
		value := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(rt, "value")
		context := rapid.String().Draw(rt, "context")
		sealed, err := one.Seal(value, context)
		if err != nil {
			rt.Fatal(err)
		}
		again, err := one.Seal(value, context)
		if err != nil || bytes.Equal(sealed, again) {
			rt.Errorf("the same value is sealed to the same bytes: %v", err)
		}
		if len(value) > 8 && bytes.Contains(sealed, value) {
			rt.Error("the value stands in what is sealed")
		}
		if opened, err := one.Open(sealed, context); err != nil || !bytes.Equal(opened, value) {
			rt.Errorf("opened %q, %v", opened, err)
		}
		broken := bytes.Clone(sealed)
		broken[rapid.IntRange(0, len(broken)-1).Draw(rt, "at")] ^= 1
		for name, open := range map[string]func() ([]byte, error){
			"another context": func() ([]byte, error) { return one.Open(sealed, context+"x") },
			"another key":     func() ([]byte, error) { return other.Open(sealed, context) },
			"a changed byte":  func() ([]byte, error) { return one.Open(broken, context) },
			"a cut one":       func() ([]byte, error) { return one.Open(sealed[:len(sealed)/4], context) },
			"nothing":         func() ([]byte, error) { return one.Open(nil, context) },
		} {
			if opened, err := open(); !fault.Is(err, fault.Invalid) {
				rt.Errorf("%s opens it: %q, %v", name, opened, err)
			}
		}
	})
}
