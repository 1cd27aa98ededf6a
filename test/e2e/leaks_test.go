package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/auth/pki"
)

// forms are how a secret may stand somewhere: as it is, in hexadecimal, and in base64 at any place of a longer text.
func forms(secret []byte) [][]byte {
	list := [][]byte{secret, []byte(hex.EncodeToString(secret)), []byte(strings.ToUpper(hex.EncodeToString(secret)))}
	for shift := range 3 {
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := encoding.EncodeToString(append(make([]byte, shift), secret...))
			list = append(list, []byte(text[[]int{0, 2, 3}[shift]:len(text)-2])) // what neighbours share in is left out
		}
	}
	return list
}

// leaks names the secrets that stand in a text.
func leaks(text []byte, secrets map[string][]byte) []string {
	var found []string
	for name, secret := range secrets {
		if slices.ContainsFunc(forms(secret), func(form []byte) bool { return bytes.Contains(text, form) }) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

// secretsOf collects what nobody may find: the keyring's keys, tokens, and keys to the object store.
func (m *machines) secretsOf(server string, into map[string][]byte) {
	m.T.Helper()
	text, err := os.ReadFile(filepath.Join(m.Path(server), "keyring.json"))
	var kept struct {
		CAKey        string   `json:"ca_key"`
		DataKey      []byte   `json:"data_key"`
		GossipKey    []byte   `json:"gossip_key"`
		Seal         [][]byte `json:"seal_keys"`
		ObjectSecret string   `json:"object_secret"`
	}
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	var key *ecdsa.PrivateKey
	if err == nil {
		key, err = pki.ParseKey([]byte(kept.CAKey))
	}
	if err != nil {
		m.T.Fatal(err)
	}
	scalar, err := key.Bytes()
	if err != nil {
		m.T.Fatal(err)
	}
	n := len(into)
	for name, secret := range map[string][]byte{"CA key": scalar, "data key": kept.DataKey, "gossip key": kept.GossipKey, "object store's root secret": []byte(kept.ObjectSecret)} {
		into[fmt.Sprintf("%s (%d)", name, n)] = secret
	}
	for i, seal := range kept.Seal {
		into[fmt.Sprintf("sealing key %d (%d)", i, n)] = seal
	}
}

// tokenSecret is the part of a token's text that is secret.
func tokenSecret(text string) []byte { return []byte(strings.Split(strings.TrimSpace(text), "_")[3]) }

// kept are the files that hold secrets, as docs/operations.md says.
var kept = regexp.MustCompile(`/(keyring\.json|keyring\.next-[0-9a-f]+\.json|tls/[a-z]+\.pem|admin\.token)$|^n[0-9]+/(member|keys|objects)\.json$|^config\.json$|^[^/]+\.token$|^password$`)

func TestNoSecretStandsWhereItIsNotMeantTo(t *testing.T) {
	m := start(t, 1, 1)
	secrets := map[string][]byte{}
	m.secretsOf("s1", secrets)
	admin, err := os.ReadFile(filepath.Join(m.Path("s1"), "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	secrets["admin's token"] = tokenSecret(string(admin))
	m.Clary("token", "create", "ada", "--role", "user", "--token-file", m.File("ada.token", ""))
	ada, err := os.ReadFile(m.Path("ada.token"))
	if err != nil {
		t.Fatal(err)
	}
	secrets["a user's token"] = tokenSecret(string(ada))
	secrets["a join token"] = tokenSecret(m.Token("agent"))
	var s3 struct {
		SecretKey string `json:"secret_access_key"`
	}
	m.JSON(&s3, "s3", "-o", "json")
	secrets["a user's S3 key"] = []byte(s3.SecretKey)
	const value = "correct-horse-battery-staple"
	secrets["a user's secret"] = []byte(value)

	// All sorts of work, some of which fails.
	m.Clary("secret", "set", "password", "--from-file", m.File("password", value))
	m.Exits(0, "run", "--name", "knows", "--secret", "password", "--", "sh", "-c", `test "$(cat $CLARY_SECRETS/password)" = `+`"$(printf %s-%s correct horse-battery-staple)"`)
	_, _ = m.Try("run", "--name", "fails", "--secret", "password", "--", "sh", "-c", "exit 3")
	m.refuses(nil, []string{"run", "--secret", "none", "--", "true"}, "none")
	m.refuses([]string{"CLARY_TOKEN=clary_u_0123456789abcdef_" + strings.Repeat("0", 64)}, []string{"nodes"}, "not known")
	m.Clary("cp", m.File("object", "of no secret"), "s3://clary/leaks/object")
	m.As([]string{"CLARY_TOKEN=" + strings.TrimSpace(string(ada))}, "token", "rotate", "--token-file", m.Path("new.token"))
	m.Clary("keys", "rotate", "data", "--wait")
	m.Clary("keys", "rotate", "gossip", "--wait")
	m.Clary("keys", "rotate", "ca", "--wait", "--yes")
	m.secretsOf("s1", secrets)
	m.Exits(0, "run", "--name", "again", "--secret", "password", "--", "true") // it opens with the new key
	m.Clary("run", "--name", "stays", "--secret", "password", "--detach", "--", "sleep", "60")
	m.WaitFor("the last job to run", 30*time.Second, func() bool { return m.Job("stays").State == "running" })

	for name, secret := range secrets {
		if len(secret) < 16 {
			t.Fatalf("%s: %d bytes are no secret to look for", name, len(secret))
		}
	}
	searched := 0
	look := func(where string, text []byte) {
		searched++
		for _, leak := range leaks(text, secrets) {
			t.Errorf("%s holds %s", where, leak)
		}
	}
	// The search itself finds what it is to find.
	for name, secret := range secrets {
		for _, form := range forms(secret) {
			if planted := leaks(append([]byte("token="), form...), secrets); !slices.Contains(planted, name) {
				t.Fatalf("a planted %s is not found", name)
			}
		}
	}
	for _, args := range [][]string{
		{"jobs"},
		{"job", "knows"},
		{"job", "fails"},
		{"job", "stays"},
		{"logs", "fails"},
		{"nodes"},
		{"nodes", "n1"},
		{"cluster"},
		{"keys", "show"},
		{"token", "list"},
		{"secret", "list"},
		{"audit"},
		{"queue"},
		{"settings", "show"},
		{"context"},
		{"models"},
		{"endpoints"},
		{"sweeps"},
	} {
		out, err := m.Try(append(args, "-o", "json")...)
		if err != nil {
			out, _ = m.Try(args...) // that has no such form
		}
		look("clary "+strings.Join(args, " "), []byte(out))
	}
	allowed := m.searchFiles(look)
	if allowed < 5 {
		t.Errorf("only %d files are where secrets are kept: the search looks elsewhere", allowed)
	}
	m.searchProcesses(look)
	m.searchMetrics(look)
	if len(m.Ops) != 2 {
		t.Errorf("%d processes are measured, not both", len(m.Ops))
	}
	t.Logf("searched %d places for %d secrets in %d forms each", searched, len(secrets), len(forms([]byte(value))))
	m.Clary("cancel", "stays")
	m.WaitFor("it to end", 20*time.Second, func() bool { return m.Job("stays").State != "running" })
}

// searchFiles looks into every file of the cluster but those that are meant to hold secrets, which it counts: logs, the
// raft log, the state, snapshots, the decisions' record, what tasks leave.
func (m *machines) searchFiles(look func(string, []byte)) (allowed int) {
	err := filepath.WalkDir(m.Dir, func(path string, item fs.DirEntry, err error) error {
		if err != nil || !item.Type().IsRegular() {
			return nil //nolint:nilerr // what is gone meanwhile holds nothing
		}
		name, _ := filepath.Rel(m.Dir, path)
		if kept.MatchString(name) {
			allowed++
			return nil
		}
		if text, err := os.ReadFile(path); err == nil {
			look(name, text)
		}
		return nil
	})
	if err != nil {
		m.T.Error(err)
	}
	return allowed
}

// searchProcesses looks at the arguments and the environment of every process but the store's child, whose environment
// is where it has its keys, and those that the test itself gave a token.
func (m *machines) searchProcesses(look func(string, []byte)) {
	for _, pid := range m.PIDs("") {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		environment, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		words := strings.Split(string(line), "\x00")
		if len(words) > 1 && (words[1] == "server" || words[1] == "agent") {
			line = nil
		}
		if len(words) > 1 && words[1] == "objectstore" {
			environment = nil
		}
		look(fmt.Sprintf("process %d, %.60q", pid, line), append(line, environment...))
	}
}

// searchMetrics looks at what operators' listeners serve.
func (m *machines) searchMetrics(look func(string, []byte)) {
	for name, url := range m.Ops {
		for path, held := range map[string]string{"/metrics": "clary_build_info", "/readyz": `"ready"`, "/healthz": "ok"} {
			code, text := asks(m.T, url+path, "")
			if code != http.StatusOK || !strings.Contains(text, held) {
				m.T.Errorf("%s of %s: %d, %.200q", path, name, code, text)
			}
			look(path+" of "+name, []byte(text))
		}
	}
}
