package tpe_test

import (
	"fmt"
	"testing"

	"github.com/clary-ml/clary/tuner/tpe"
	"github.com/clary-ml/clary/tuner/tunertest"
)

func BenchmarkSuggest(b *testing.B) {
	for _, n := range []int{50, 200, 1000, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("results=%d", n), func(b *testing.B) { tunertest.Latency(b, tpe.New, n, 64) })
	}
}
