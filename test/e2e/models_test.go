package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// versionJSON is what these tests read of a version.
type versionJSON struct {
	Version  int64 `json:"version"`
	Artifact struct {
		URI    string `json:"uri"`
		SHA256 string `json:"sha256"`
	} `json:"artifact"`
	Lineage struct {
		Job        string             `json:"job"`
		CodeDigest string             `json:"code_digest"`
		Parameters map[string]string  `json:"parameters"`
		Metrics    map[string]float64 `json:"metrics"`
		Data       []struct {
			Channel string `json:"channel"`
			Digest  string `json:"digest"`
			Changed bool   `json:"changed"`
		} `json:"data"`
	} `json:"lineage"`
	Approval struct {
		State string `json:"state"`
	} `json:"approval"`
}

func (m *machines) version(ref string) versionJSON {
	m.T.Helper()
	var v versionJSON
	m.JSON(&v, "models", "show", ref, "-o", "json")
	return v
}

// failsWith runs a command that must not succeed, and say why.
func (m *machines) failsWith(want string, args ...string) {
	m.T.Helper()
	if said, err := m.Try(args...); err == nil || !strings.Contains(said, want) {
		m.T.Errorf("clary %s: %v, said %q, want %q in it", strings.Join(args, " "), err, said, want)
	}
}

func TestAModelFromTheJobThatTrainsItToItsDeletion(t *testing.T) {
	m := start(t, 1, 1)
	m.digits("one", "--epochs", "3", "--register", "digits")
	m.digits("two", "--epochs", "5", "--register", "digits")
	m.Waits(0, "one")
	m.Waits(0, "two")
	versions := map[string]int64{}
	for _, ref := range []string{"digits@1", "digits@2"} {
		v := m.version(ref)
		versions[v.Lineage.Job] = v.Version
		if v.Approval.State != "pending" || v.Lineage.Metrics["validation_accuracy"] == 0 || len(v.Lineage.Data) != 1 || !strings.HasPrefix(v.Lineage.CodeDigest, "sha256:") {
			t.Errorf("%s: %+v", ref, v)
		}
		for _, data := range v.Lineage.Data {
			if data.Changed || !strings.HasPrefix(data.Digest, "sha256:") {
				t.Errorf("%s: data %+v", ref, data)
			}
		}
		if want := map[string]string{"one": "3", "two": "5"}[v.Lineage.Job]; v.Lineage.Parameters["epochs"] != want {
			t.Errorf("%s of job %s: epochs %q", ref, v.Lineage.Job, v.Lineage.Parameters["epochs"])
		}
	}
	one, two := "digits@"+strconv.FormatInt(versions["one"], 10), "digits@"+strconv.FormatInt(versions["two"], 10)
	if said := m.Clary("models", "register", "two", "--name", "digits"); !strings.Contains(said, two+" was registered before") {
		t.Errorf("registered again: %s", said)
	}

	m.Clary("models", "approve", two, "--why", "passed review")
	m.Clary("models", "alias", two, "champion")
	m.failsWith("used by alias champion", "models", "delete", two)
	m.failsWith("rejected", "models", "reject", two)
	if said := m.Clary("models", "compare", one, "digits:champion"); !strings.Contains(said, "parameter epochs") || !strings.Contains(said, "metric validation_accuracy") {
		t.Errorf("compared: %s", said)
	}

	// The job may go: the version has an artifact of its own.
	m.Clary("delete", "two")
	champion := m.version("digits:champion")
	m.Clary("models", "download", "digits:champion", m.Path("champion.tar.gz"))
	if sum := sumOfFile(t, m.Path("champion.tar.gz")); sum != champion.Artifact.SHA256 {
		t.Errorf("downloaded with %s, registered with %s", sum, champion.Artifact.SHA256)
	}

	// What comes from elsewhere is read back for its digest; what is not what was meant is refused.
	m.Clary("models", "import", m.Path("champion.tar.gz"), "--name", "outside", "--framework", "clary", "--metric", "accuracy=0.9")
	if outside := m.version("outside@1"); outside.Artifact.SHA256 != champion.Artifact.SHA256 || outside.Artifact.URI == champion.Artifact.URI {
		t.Errorf("imported: %+v", outside)
	}
	m.failsWith("is not the file that was meant", "models", "import", champion.Artifact.URI, "--name", "outside", "--sha256", strings.Repeat("0", 64))
	if left := m.Clary("ls", "-r", "s3://clary/models/outside/", "-o", "json"); strings.Count(left, `"uri"`) != 1 {
		t.Errorf("the refused import left %s", left)
	}

	// What a version is worth is kept beside it, with the page.
	test := "../../examples/digits/test.csv.gz"
	m.Clary("models", "alias", one, "challenger")
	m.Clary("evaluate", "model://digits:challenger", test, "--against", "model://digits:champion", "--store", "held-out")
	m.Clary("evaluate", "model://digits:champion", test)
	m.failsWith("under 0.999", "evaluate", "model://"+two, test, "--store", "strict", "--fail-under", "accuracy=0.999")
	var evaluated struct {
		Evaluations []struct {
			Name    string             `json:"name"`
			Against string             `json:"against"`
			Report  string             `json:"report"`
			Details string             `json:"details"`
			Rows    int                `json:"rows"`
			Metrics map[string]float64 `json:"metrics"`
		} `json:"evaluations"`
	}
	m.JSON(&evaluated, "models", "show", one, "-o", "json")
	if len(evaluated.Evaluations) != 1 {
		t.Fatalf("evaluations of %s: %+v", one, evaluated)
	}
	e := evaluated.Evaluations[0]
	if e.Name != "held-out" || e.Against != two || e.Rows == 0 || e.Metrics["accuracy"] < 0.8 {
		t.Errorf("evaluation: %+v", e)
	}
	if page := m.Clary("cp", e.Report, "-"); !strings.Contains(page, "<html") || !strings.Contains(page, "digits:champion") {
		t.Errorf("the page: %.200s", page)
	}
	if details := m.Clary("cp", e.Details, "-"); !strings.Contains(details, `"confusion"`) {
		t.Errorf("the details: %.200s", details)
	}
	if said := m.Clary("models", "compare", one, two); !strings.Contains(said, "evaluation test accuracy") {
		t.Errorf("compared after evaluation: %s", said)
	}
	m.failsWith("evaluation "+one+"/held-out", "models", "delete", two)
	m.Clary("models", "delete", one, "--evaluation", "held-out")
	if left := m.Clary("ls", "-r", "s3://clary/models/digits/", "-o", "json"); strings.Contains(left, e.Report) {
		t.Errorf("the removed evaluation left %s", left)
	}
	m.Clary("models", "alias", "digits", "challenger", "--remove")

	// A job is given the champion of its day, whole; the alias moves on meanwhile.
	m.reads("reader", "model://digits:champion", champion.Artifact.SHA256)
	m.Clary("models", "alias", one, "champion")
	m.failsWith("used by job reader", "models", "delete", two)
	m.Clary("release", "reader")
	m.Waits(0, "reader")

	// Another content under the artifact's address is no version any more.
	first := m.version(one)
	m.Clary("cp", m.File("forged", "forged"), first.Artifact.URI)
	m.failsWith("somebody has replaced", "models", "download", one, m.Path("forged.tar.gz"))
	m.reads("deceived", "model://"+one, first.Artifact.SHA256)
	m.Clary("release", "deceived")
	m.Waits(1, "deceived")
	if reason := m.Job("deceived").Reason; !strings.Contains(reason, "somebody has replaced it") {
		t.Errorf("the job failed since %q", reason)
	}

	m.Clary("models", "delete", two)
	if left, _ := m.Try("ls", "-r", champion.Artifact.URI, "-o", "json"); strings.Contains(left, `"uri"`) {
		t.Errorf("the deleted version left %s", left)
	}
	m.failsWith("was deleted", "models", "show", two)
	m.failsWith("was deleted", "run", "--name", "late", "--input", "model=model://"+two, "--", "true")
}

// reads submits a job that waits, and then compares the digest of what it was given.
func (m *machines) reads(name, ref, sum string) {
	m.T.Helper()
	check := fmt.Sprintf("echo '%s  input/data/model/model.tar.gz' | sha256sum -c", sum)
	m.Clary("run", "--name", name, "--hold", "--detach", "--input", "model="+ref, "--", "sh", "-c", check)
}

func sumOfFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}
