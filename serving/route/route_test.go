package route_test

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/serving/route"
)

func TestABucketHoldsWhatIsCountedInIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(100*time.Second)).Draw(t, "duration"))
		bucket := route.BucketOf(d)
		if upper := route.UpperOf(bucket); d >= upper {
			t.Fatalf("%v is in bucket %d, which ends at %v", d, bucket, upper)
		}
		if bucket > 0 && d < route.UpperOf(bucket-1) {
			t.Fatalf("%v is in bucket %d, and the one before ends at %v", d, bucket, route.UpperOf(bucket-1))
		}
	})
}

func TestAQuantileIsRightToSevenPercent(t *testing.T) {
	var h route.Histogram
	for ms := 1; ms <= 1000; ms++ {
		h.Add(time.Duration(ms) * time.Millisecond)
	}
	for _, q := range []float64{0.5, 0.9, 0.99, 1} {
		if got, want := h.Quantile(q).Seconds(), q; math.Abs(got-want)/want > 0.07 {
			t.Errorf("quantile %v is %v s, want %v", q, got, want)
		}
	}
	if got := (route.Histogram{}).Quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
	if h.Minus(h).N() != 0 || h.Plus(h).N() != 2000 {
		t.Errorf("h - h has %d, h + h %d", h.Minus(h).N(), h.Plus(h).N())
	}
}

func TestWhatIsBeyondTheLastBucketIsCountedThere(t *testing.T) {
	var h route.Histogram
	h.Add(3 * time.Hour)
	if len(h.Counts) != route.Buckets || h.N() != 1 {
		t.Errorf("%d buckets hold %d", len(h.Counts), h.N())
	}
}

func TestATableIsItsJSON(t *testing.T) {
	table := route.Table{Version: 7, Endpoints: []route.Endpoint{{
		Name: "churn", Fleets: []route.Fleet{{Variant: "blue", Weight: 1, Replicas: []route.Replica{{ID: "a", Address: "127.0.0.1:1"}}}},
		Limits: route.Limits{Timeout: time.Second}, Shadow: &route.Shadow{Variant: "green", Share: 0.5},
	}}, Tokens: []route.Token{{ID: "t", Hash: []byte{1}, Name: "ann", Role: "user"}}}
	text, err := json.Marshal(table)
	if err != nil {
		t.Fatal(err)
	}
	var back route.Table
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, table) {
		t.Errorf("%s came back as %+v, %v", text, back, err)
	}
}
