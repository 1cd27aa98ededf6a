package gp

import (
	"math"
	"testing"
)

func TestExpAgreesWithTheLibrary(t *testing.T) {
	worst := 0.0
	for x := 0.0; x > -699; x -= 0.000917 {
		want := math.Exp(x)
		worst = math.Max(worst, math.Abs(exp(x)-want)/want)
	}
	if worst > 4.5e-16 {
		t.Fatalf("relative error %g", worst)
	}
	if exp(-701) != 0 || exp(math.Inf(-1)) != 0 || exp(0) != 1 {
		t.Fatal("ends")
	}
}

func BenchmarkExp(b *testing.B) {
	sum := 0.0
	x := 0.0
	for b.Loop() {
		x -= 0.01
		if x < -20 {
			x = 0
		}
		sum += exp(x)
	}
	_ = sum
}

func BenchmarkMathExp(b *testing.B) {
	sum := 0.0
	x := 0.0
	for b.Loop() {
		x -= 0.01
		if x < -20 {
			x = 0
		}
		sum += math.Exp(x)
	}
	_ = sum
}
