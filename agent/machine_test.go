package agent

import (
	"log/slog"
	"strings"
	"testing"
)

func TestWhoKnowsHowFastItsGPUsAreSaysSo(t *testing.T) {
	config := Config{
		ID: "n", Data: t.TempDir(), Address: "127.0.0.1", SimulateGPUs: "1xA100,1xT4,1xL40S", Log: slog.New(slog.DiscardHandler),
		GPUSpeeds: map[string]string{"T4": "0.25", "L40S": "1.8", "GB10": "0.4"},
	}
	m, err := lookAround(config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.close() }()
	for range 2 {
		node := m.node(t.Context())
		for model, want := range map[string]int32{"A100": 1000, "T4": 250, "L40S": 1800} {
			for _, d := range node.Devices {
				if d.Model == model && d.Speed != want {
					t.Errorf("%s has speed %d, want %d", model, d.Speed, want)
				}
			}
		}
		if p := node.Validate(); len(node.Devices) != 3 || len(p) > 0 {
			t.Errorf("the node has %d devices and is refused: %v", len(node.Devices), p)
		}
		m.config.GPUSpeeds["A100"] = "1"
	}
}

func TestASpeedThatIsNoneIsRefusedWithItsModel(t *testing.T) {
	for _, speed := range []string{"", "fast", "0", "-1", "NaN", "Inf", "1e9", "0.0001", "1.8x"} {
		p := Config{GPUSpeeds: map[string]string{"T4": "0.2", "L40S": speed}}.Validate()
		if err := p.Err(); err == nil || !strings.Contains(err.Error(), "--gpu-speed: L40S=") || strings.Contains(err.Error(), "T4") {
			t.Errorf("L40S=%s: %v", speed, err)
		}
	}
	for _, speed := range []string{"0.001", "1000", "1e2"} {
		if err := (Config{GPUSpeeds: map[string]string{"L40S": speed}}).Validate().Err(); err != nil && strings.Contains(err.Error(), "gpu-speed") {
			t.Errorf("L40S=%s: %v", speed, err)
		}
	}
}
