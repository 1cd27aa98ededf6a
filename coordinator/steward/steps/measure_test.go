package steps_test

import (
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/serving/autoscale"
	"github.com/clary-ml/clary/workload/endpoint"
)

// tell has a fleet's replicas tell a metric from now on.
func (s *shop) tell(fleet, metric string, value float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = map[string]map[string]float64{fleet: {metric: value}}
}

func TestAFleetFollowsAMetricThatItsReplicasTell(t *testing.T) {
	scaling := &autoscale.Spec{Min: 1, Max: 20, Policies: []autoscale.Policy{{Metric: "queue_depth", Target: 10}}}
	inBubble(t, blueAndGreen(scaling), func(s *shop) {
		s.tell("blue-1", "queue_depth", 30)
		s.pass(5*time.Second, func() { s.fleet("blue", 1) })
		if n := s.replicas("blue"); n < 3 || !strings.Contains(s.notes(), "blue-1 from 1 to 3: queue_depth is 30 for each replica, the target 10") {
			s.Errorf("%d replicas: %s", n, s.notes())
		}
		s.tell("blue-1", "queue_depth", 0.1)
		s.pass(10*time.Minute, func() {})
		if n := s.replicas("blue"); n != 1 {
			s.Errorf("%d replicas when there was nothing to do any more: %s", n, s.notes())
		}
	})
}

func TestAnUpdateIsRolledBackByAMetricThatItsReplicasTell(t *testing.T) {
	above, below := 0.5, 0.5
	for name, c := range map[string]struct {
		alarm   endpoint.MetricAlarm
		value   float64
		want    string
		watched bool
	}{
		"above":     {endpoint.MetricAlarm{Name: "drift", Above: &above}, 0.7, "blue-2: drift is 0.7 in the mean of", false},
		"below":     {endpoint.MetricAlarm{Name: "drift", Below: &below}, 0.3, "blue-2: drift is 0.3 in the mean of", false},
		"well":      {endpoint.MetricAlarm{Name: "drift", Above: &above}, 0.3, "", true},
		"of others": {endpoint.MetricAlarm{Name: "loss", Above: &above}, 0.7, "", false}, // nobody tells it: that is not well
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, map[string]any{"variants": []map[string]any{variant("blue", 1, nil)}}, func(s *shop) {
				s.pass(5*time.Second, func() {})
				s.updating(endpoint.Alarms{Metric: &c.alarm})
				s.change(func(_ cluster.Job, e cluster.Endpoint) (cluster.Endpoint, error) {
					baking := *e.Rollout
					baking.Bake = 80 * time.Second
					e.Rollout = &baking
					return e, nil
				})
				s.tell("blue-2", "drift", c.value)
				s.pass(90*time.Second, func() { serve(s.fleet("blue", 2), 10, 0, time.Millisecond) })
				_, e := s.now()
				if got := e.Rollout.Alarm; (c.want == "") != (got == "") || !strings.HasPrefix(got, c.want) || s.watched() != c.watched {
					s.Errorf("the alarm is %q, want %q; watched: %v", got, c.want, s.watched())
				}
			})
		})
	}
}

func TestAFleetFollowsWhatWaitsAsynchronously(t *testing.T) {
	scaling := &autoscale.Spec{Max: 20, Policies: []autoscale.Policy{{Metric: autoscale.Backlog, Target: 10}}}
	inBubble(t, blueAndGreen(scaling), func(s *shop) {
		s.tell("blue-1", "backlog", 60)
		s.pass(5*time.Second, func() { s.fleet("blue", 1) })
		if n := s.replicas("blue"); n != 6 {
			s.Errorf("%d replicas: %s", n, s.notes())
		}
		s.tell("blue-1", "backlog", 0)
		s.pass(40*time.Minute, func() {})
		if n := s.replicas("blue"); n != 0 {
			s.Errorf("%d replicas when nothing waited any more: %s", n, s.notes())
		}
	})
}
