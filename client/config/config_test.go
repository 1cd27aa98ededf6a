package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/internal/fault"
)

var pin = "sha256:" + strings.Repeat("ab", 32)

func env(pairs ...string) func(string) string {
	values := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		values[pairs[i]] = pairs[i+1]
	}
	return func(key string) string { return values[key] }
}

func home() config.Context {
	return config.Context{Addresses: []string{"a:1", "b:2"}, CAPin: pin, Token: "clary_u_1_x"}
}

func TestWhatIsSavedIsLoadedAndPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "config.json")
	var file config.File
	if err := file.Set("home", home()); err != nil {
		t.Fatal(err)
	}
	if err := config.Save(path, file); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v: want 0600", info.Mode(), err)
	}
	got, err := config.Load(path)
	if err != nil || got.Current != "home" || got.Contexts["home"].Addresses[1] != "b:2" {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestAFileThatOthersMayReadIsRefusedWithTheRemedy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	if err := config.Save(path, config.File{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(path); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("%v", err)
	}
}

func TestRubbishIsRefusedAndNoFileIsEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	if file, err := config.Load(path); err != nil || len(file.Contexts) != 0 {
		t.Fatalf("%+v, %v", file, err)
	}
	for _, text := range []string{"", "{", "[]", `{"contextz":{}}`, `{"current":1}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Load(path); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestTheEnvironmentComesFirst(t *testing.T) {
	var file config.File
	away := config.Context{Addresses: []string{"c:3"}, CAPin: pin, Token: "t2"}
	if err := file.Set("away", away); err != nil {
		t.Fatal(err)
	}
	if err := file.Set("home", home()); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, context string
		getenv        func(string) string
		address       string
		token         string
	}{
		{"the current context", "", env(), "a:1", "clary_u_1_x"},
		{"a named one", "away", env(), "c:3", "t2"},
		{"one that the environment names", "", env(config.EnvContext, "away"), "c:3", "t2"},
		{"the flag goes before the environment", "home", env(config.EnvContext, "away"), "a:1", "clary_u_1_x"},
		{"an address and a token", "", env(config.EnvAddress, "d, e:5", config.EnvToken, "t3"), "d:7420", "t3"},
	} {
		got, err := file.Resolve(row.context, row.getenv)
		if err != nil || got.Addresses[0] != row.address || got.Token != row.token {
			t.Errorf("%s: %+v, %v", row.name, got, err)
		}
	}
	if _, err := file.Resolve("nowhere", env()); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "away, home") {
		t.Errorf("an unknown context: %v", err)
	}
	if _, err := (config.File{}).Resolve("", env()); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "clary login") {
		t.Errorf("nothing known: %v", err)
	}
	if _, err := (config.File{}).Resolve("", env(config.EnvAddress, "a:1")); err == nil || !strings.Contains(err.Error(), "ca_pin") {
		t.Errorf("an address without a pin: %v", err)
	}
}

func TestContextsComeAndGo(t *testing.T) {
	var file config.File
	for _, bad := range []config.Context{
		{},
		{Addresses: []string{"a:1"}},
		{Addresses: []string{"a:1"}, CAPin: "sha256:12"},
		{Addresses: []string{"a"}, CAPin: pin},
		{Addresses: []string{"a:0"}, CAPin: pin},
		{Addresses: []string{":80"}, CAPin: pin},
		{Addresses: []string{"a:1"}, CAPin: pin, Token: "two words"},
	} {
		if err := file.Set("x", bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := file.Set("Bad Name", home()); !fault.Is(err, fault.Invalid) {
		t.Errorf("a bad name: %v", err)
	}
	if len(file.Contexts) != 0 {
		t.Error("a refused context was kept")
	}
	if err := file.Set("home", home()); err != nil {
		t.Fatal(err)
	}
	if err := file.Use("away"); !fault.Is(err, fault.NotFound) {
		t.Errorf("use: %v", err)
	}
	if err := file.Delete("home"); err != nil || file.Current != "" || len(file.Contexts) != 0 {
		t.Errorf("%+v, %v", file, err)
	}
	if err := file.Delete("home"); !fault.Is(err, fault.NotFound) {
		t.Errorf("delete twice: %v", err)
	}
}

func TestAddressesTakeTheDefaultPort(t *testing.T) {
	got := strings.Join(config.SplitAddresses("a, b:1,::1,[::2],[::3]:9,,"), " ")
	if want := "a:7420 b:1 [::1]:7420 [::2]:7420 [::3]:9"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
