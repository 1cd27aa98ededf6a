package bbob

import (
	"math"
)

// second is added to the seed of the rotation that stands outermost.
const second = 1000000

type builder func(setting) func([]float64) float64

// builders are functions 1 to 24, each without its optimum's value.
var builders = [Functions]builder{
	sphere, ellipsoid, rastrigin, buecheRastrigin, linearSlope,
	attractiveSector, stepEllipsoid, rosenbrock, rotatedRosenbrock,
	rotatedEllipsoid, discus, bentCigar, sharpRidge, differentPowers,
	rotatedRastrigin, weierstrass, schaffers(10), schaffers(1000), griewankRosenbrock,
	schwefel, gallagher(101, math.Sqrt(1000), 10, 5), gallagher(21, 1000, 9.8, 4.9), katsuura, lunacek,
}

func squares(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	return sum
}

func sphere(s setting) func([]float64) float64 {
	return func(x []float64) float64 { return squares(s.shifted(x)) }
}

func (s setting) weighted(condition float64, z []float64) float64 {
	sum := 0.0
	for i, v := range z {
		sum += math.Pow(condition, s.share(i)) * v * v
	}
	return sum
}

func ellipsoid(s setting) func([]float64) float64 {
	return func(x []float64) float64 { return s.weighted(1e6, oscillateAll(s.shifted(x))) }
}

// ripples is 10 (d - sum cos 2 pi z) + |z|^2.
func ripples(z []float64) float64 {
	sum := 0.0
	for _, v := range z {
		sum += math.Cos(2 * math.Pi * v)
	}
	return 10*(float64(len(z))-sum) + squares(z)
}

func rastrigin(s setting) func([]float64) float64 {
	return func(x []float64) float64 {
		return ripples(s.stretch(10, s.skew(0.2, oscillateAll(s.shifted(x)))))
	}
}

func buecheRastrigin(s setting) func([]float64) float64 {
	for i := 0; i < s.d; i += 2 {
		s.at[i] = math.Abs(s.at[i])
	}
	return func(x []float64) float64 {
		z := oscillateAll(s.shifted(x))
		for i := range z {
			if z[i] > 0 && i%2 == 0 {
				z[i] *= 10
			}
		}
		return ripples(s.stretch(10, z)) + 100*outside(x)
	}
}

func linearSlope(s setting) func([]float64) float64 {
	slopes := make([]float64, s.d)
	for i := range slopes {
		slopes[i] = math.Copysign(math.Pow(10, s.share(i)), s.at[i])
		s.at[i] = math.Copysign(5, s.at[i])
	}
	return func(x []float64) float64 {
		sum := 0.0
		for i, slope := range slopes {
			z := x[i]
			if z*s.at[i] >= 25 {
				z = s.at[i]
			}
			sum += 5*math.Abs(slope) - slope*z
		}
		return sum
	}
}

// twisted is R Lambda Q as a function.
func (s setting) twisted(condition float64) func([]float64) []float64 {
	outer, inner := rotation(s.seed+second, s.d), rotation(s.seed, s.d)
	return func(x []float64) []float64 { return outer.times(s.stretch(condition, inner.times(x))) }
}

func attractiveSector(s setting) func([]float64) float64 {
	twist := s.twisted(10)
	return func(x []float64) float64 {
		z := twist(s.shifted(x))
		for i := range z {
			if z[i]*s.at[i] > 0 {
				z[i] *= 100
			}
		}
		return math.Pow(oscillate(squares(z)), 0.9)
	}
}

func stepEllipsoid(s setting) func([]float64) float64 {
	outer, inner := rotation(s.seed+second, s.d), rotation(s.seed, s.d)
	return func(x []float64) float64 {
		z := s.stretch(10, inner.times(s.shifted(x)))
		first := z[0]
		for i, v := range z {
			if math.Abs(v) > 0.5 {
				z[i] = math.Floor(v + 0.5)
			} else {
				z[i] = math.Floor(10*v+0.5) / 10
			}
		}
		return 0.1*max(math.Abs(first)/1e4, s.weighted(100, outer.times(z))) + outside(x)
	}
}

func valley(z []float64) float64 {
	sum := 0.0
	for i := range len(z) - 1 {
		bend, off := z[i]*z[i]-z[i+1], z[i]-1
		sum += 100*bend*bend + off*off
	}
	return sum
}

func (s setting) widening() float64 { return max(1, math.Sqrt(float64(s.d))/8) }

func rosenbrock(s setting) func([]float64) float64 {
	for i := range s.at {
		s.at[i] *= 0.75
	}
	return func(x []float64) float64 {
		z := s.shifted(x)
		for i := range z {
			z[i] = s.widening()*z[i] + 1
		}
		return valley(z)
	}
}

// turned is max(1, sqrt(d)/8) R x + 1/2; the optimum goes along.
func (s setting) turned(to float64) func([]float64) []float64 {
	r := rotation(s.seed, s.d)
	for i := range s.at {
		s.at[i] = 0
		for j := range r {
			s.at[i] += r[j][i] * to / s.widening()
		}
	}
	return func(x []float64) []float64 {
		z := r.times(x)
		for i := range z {
			z[i] = s.widening()*z[i] + 0.5
		}
		return z
	}
}

func rotatedRosenbrock(s setting) func([]float64) float64 {
	turn := s.turned(0.5)
	return func(x []float64) float64 { return valley(turn(x)) }
}

func rotatedEllipsoid(s setting) func([]float64) float64 {
	r := rotation(s.seed+second, s.d)
	return func(x []float64) float64 { return s.weighted(1e6, oscillateAll(r.times(s.shifted(x)))) }
}

func discus(s setting) func([]float64) float64 {
	r := rotation(s.seed+second, s.d)
	return func(x []float64) float64 {
		z := oscillateAll(r.times(s.shifted(x)))
		return 1e6*z[0]*z[0] + squares(z[1:])
	}
}

func bentCigar(s setting) func([]float64) float64 {
	copy(s.at, optimumAt(s.seed+second, s.d))
	r := rotation(s.seed+second, s.d)
	return func(x []float64) float64 {
		z := r.times(s.skew(0.5, r.times(s.shifted(x))))
		return z[0]*z[0] + 1e6*squares(z[1:])
	}
}

func sharpRidge(s setting) func([]float64) float64 {
	twist := s.twisted(10)
	return func(x []float64) float64 {
		z := twist(s.shifted(x))
		return z[0]*z[0] + 100*math.Sqrt(squares(z[1:]))
	}
}

func differentPowers(s setting) func([]float64) float64 {
	r := rotation(s.seed+second, s.d)
	return func(x []float64) float64 {
		sum := 0.0
		for i, v := range r.times(s.shifted(x)) {
			sum += math.Pow(math.Abs(v), 2+4*s.share(i))
		}
		return math.Sqrt(sum)
	}
}
