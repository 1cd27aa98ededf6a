package deploy

import (
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestComposeTakesItsFile(t *testing.T) {
	tool(t, "docker-compose", "docker-compose")
	run(t, "docker-compose", "--file", "compose/compose.yaml", "config", "--quiet")
}

// What the file says must fit together: each machine's own address, and a token for each that joins.
func TestEachMachineOfTheComposeFileHasWhatItNames(t *testing.T) {
	text, err := os.ReadFile("compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Command  any
			Volumes  []string
			Networks any
		}
		Volumes map[string]any
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	joined := 0
	for name, service := range file.Services {
		for _, volume := range service.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			if _, ok := file.Volumes[source]; !ok {
				t.Errorf("%s mounts %s, which is no volume", name, source)
			}
		}
		command, ok := service.Command.(string)
		if !ok {
			continue // the service that makes tokens
		}
		networks, _ := service.Networks.(map[string]any)
		network, _ := networks["clary"].(map[string]any)
		address, _ := network["ipv4_address"].(string)
		if address == "" || !strings.Contains(command, "--listen "+address+":") || !strings.Contains(command, "--id "+name+" ") {
			t.Errorf("%s has the address %q and the command %s", name, address, command)
		}
		if strings.Contains(command, "--join") {
			joined++
			if !strings.HasSuffix(command, "--token-file /tokens/"+name) {
				t.Errorf("%s joins with another's token: %s", name, command)
			}
		}
	}
	if joined != 4 {
		t.Errorf("%d machines join", joined)
	}
}
