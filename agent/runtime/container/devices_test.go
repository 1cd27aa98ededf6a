package container_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/clary-ml/clary/agent/runtime"
	driver "github.com/clary-ml/clary/agent/runtime/container"
)

// playedDocker answers as dockerd does where a test cannot have one: with GPUs. It keeps what
// it was asked to make.
type playedDocker struct {
	cdi []string // folders of device files

	mu    sync.Mutex
	asked container.HostConfig
}

func (p *playedDocker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.47")
	w.Header().Set("Content-Type", "application/json")
	_, call, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case strings.HasSuffix(r.URL.Path, "/_ping"):
	case call == "version":
		fmt.Fprint(w, `{"Version": "27.0", "ApiVersion": "1.47", "Components": [{"Name": "Engine"}]}`)
	case call == "info":
		text, _ := json.Marshal(map[string]any{"InitBinary": "docker-init", "CDISpecDirs": p.cdi})
		_, _ = w.Write(text)
	case strings.HasPrefix(call, "images/"):
		fmt.Fprint(w, `{"Id": "sha256:1"}`)
	case call == "containers/create":
		var body struct{ HostConfig container.HostConfig }
		_ = json.NewDecoder(r.Body).Decode(&body)
		p.mu.Lock()
		p.asked = body.HostConfig
		p.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"Id": "c1"}`)
	case strings.HasSuffix(call, "/start"): // the task need not run
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"message": "this engine is played"}`)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func TestGPUsAreAskedForAsTheEngineKnowsThem(t *testing.T) {
	uuids := []string{"GPU-1", "GPU-7"}
	for name, c := range map[string]struct {
		cdi  []string
		want []container.DeviceRequest
	}{
		"by the Container Device Interface": {
			[]string{"/etc/cdi"}, []container.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-7"}}},
		},
		"by NVIDIA's hook": {
			nil, []container.DeviceRequest{{Driver: "nvidia", DeviceIDs: uuids, Capabilities: [][]string{{"gpu"}}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			played := &playedDocker{cdi: c.cdi}
			server := httptest.NewServer(played)
			defer server.Close()
			d, err := driver.Open(driver.Config{Root: filepath.Join(t.TempDir(), "tasks"), Socket: "tcp://" + server.Listener.Addr().String()})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close() //nolint:errcheck // nothing runs
			if _, err := d.Start(t.Context(), runtime.Spec{ID: "job/main/worker-0.1", Image: "team/tool:1", Devices: uuids}); err == nil {
				t.Fatal("the played engine starts a container")
			}
			played.mu.Lock()
			defer played.mu.Unlock()
			if !reflect.DeepEqual(played.asked.DeviceRequests, c.want) || played.asked.Init == nil {
				t.Errorf("it is asked for %+v, want %+v", played.asked.DeviceRequests, c.want)
			}
		})
	}
}
