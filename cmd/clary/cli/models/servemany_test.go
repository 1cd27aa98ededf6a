package models

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// packed is a folder's files as a .tar.gz.
func packed(t *testing.T, folder string) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	archive := tar.NewWriter(zipped)
	if err := archive.AddFS(os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestManyModelsAreServedFromAFolder(t *testing.T) {
	base := t.TempDir()
	models := filepath.Join(base, "models")
	storedModel(t, filepath.Join(models, "folder"))
	for name, text := range map[string][]byte{"packed.tar.gz": packed(t, filepath.Join(models, "folder")), "broken.tar.gz": []byte("rubbish")} {
		if err := os.WriteFile(filepath.Join(models, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	url, stop := serving(t, nil, "--models", models, "--port", "0", "--max-models", "1")
	asked := func(method, path, model, body string) (int, string) {
		t.Helper()
		request, err := http.NewRequest(method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "text/csv")
		request.Header.Set("X-Amzn-SageMaker-Target-Model", model)
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	for _, c := range []struct {
		method, path, model string
		code                int
		says                string
	}{
		{"POST", "/invocations", "folder", 200, "left,0.98"},
		{"POST", "/invocations", "packed", 200, "left,0.98"},
		{"POST", "/invocations", "folder", 200, "left,0.98"},
		{"GET", "/models", "", 200, `[{"modelName":"folder"`},
		{"GET", "/v2/models/packed.tar.gz", "", 200, `"name":"packed.tar.gz"`},
		{"POST", "/invocations", "broken", 424, "is not a model.tar.gz"},
		{"POST", "/invocations", "nothing", 404, "there is no model"},
		{"GET", "/metrics", "", 200, "clary_models_evictions_total 3"},
	} {
		if code, text := asked(c.method, c.path, c.model, "5,1\n"); code != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%s %s %s: %d %s; want %d %s", c.method, c.path, c.model, code, text, c.code, c.says)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	// An endpoint's replica is told by its place.
	env := map[string]string{"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BASE_DIR": base}
	for _, folder := range []string{"", "input"} {
		if folder != "" {
			if err := os.Rename(models, filepath.Join(base, folder)); err != nil {
				t.Fatal(err)
			}
		}
		env["CLARY_MODELS"] = folder
		url, stop = serving(t, env, "--host", "127.0.0.1", "--port", "0")
		if code, text := asked("POST", "/invocations", "folder", "5,1\n"); code != 200 {
			t.Errorf("told of the folder %q: %d %s", folder, code, text)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}
