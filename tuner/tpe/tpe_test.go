package tpe_test

import (
	"testing"

	"github.com/clary-ml/clary/tuner/tpe"
	"github.com/clary-ml/clary/tuner/tunertest"
)

func TestTPEKeepsTheLaws(t *testing.T) {
	tunertest.Run(t, tunertest.Suite{Make: tpe.New, Learns: true})
}
