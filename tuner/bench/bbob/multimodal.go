package bbob

import (
	"math"
	"slices"
)

func rotatedRastrigin(s setting) func([]float64) float64 {
	outer, twist := rotation(s.seed+second, s.d), s.twisted(10)
	return func(x []float64) float64 {
		return ripples(twist(s.skew(0.2, oscillateAll(outer.times(s.shifted(x))))))
	}
}

func weierstrass(s setting) func([]float64) float64 {
	outer, twist := rotation(s.seed+second, s.d), s.twisted(0.01)
	wave := func(v float64) float64 {
		sum := 0.0
		for k := range 12 {
			sum += math.Pow(0.5, float64(k)) * math.Cos(2*math.Pi*math.Pow(3, float64(k))*v)
		}
		return sum
	}
	least := wave(0.5)
	return func(x []float64) float64 {
		sum := 0.0
		for _, v := range twist(oscillateAll(outer.times(s.shifted(x)))) {
			sum += wave(v + 0.5)
		}
		return 10*math.Pow(sum/float64(s.d)-least, 3) + 10/float64(s.d)*outside(x)
	}
}

func schaffers(condition float64) builder {
	return func(s setting) func([]float64) float64 {
		outer, inner := rotation(s.seed+second, s.d), rotation(s.seed, s.d)
		return func(x []float64) float64 {
			z := s.stretch(condition, inner.times(s.skew(0.5, outer.times(s.shifted(x)))))
			sum := 0.0
			for i := range s.d - 1 {
				r := z[i]*z[i] + z[i+1]*z[i+1]
				wave := math.Sin(50 * math.Pow(r, 0.1))
				sum += math.Pow(r, 0.25) * (wave*wave + 1)
			}
			mean := sum / float64(s.d-1)
			return mean*mean + 10*outside(x)
		}
	}
}

func griewankRosenbrock(s setting) func([]float64) float64 {
	turn := s.turned(0.5)
	return func(x []float64) float64 {
		z, sum := turn(x), 0.0
		for i := range s.d - 1 {
			bend, off := z[i]*z[i]-z[i+1], 1-z[i]
			r := 100*bend*bend + off*off
			sum += r/4000 - math.Cos(r)
		}
		return 10 + 10*sum/float64(s.d-1)
	}
}

func schwefel(s setting) func([]float64) float64 {
	for i, u := range uniforms(s.d, s.seed) {
		s.at[i] = 0.5 * 4.2096874633
		if u < 0.5 {
			s.at[i] = -s.at[i]
		}
	}
	return func(x []float64) float64 {
		hat, z := make([]float64, s.d), make([]float64, s.d)
		for i := range hat {
			hat[i] = 2 * math.Copysign(1, s.at[i]) * x[i]
		}
		z[0] = hat[0]
		for i := 1; i < s.d; i++ {
			z[i] = hat[i] + 0.25*(hat[i-1]-2*math.Abs(s.at[i-1]))
		}
		for i := range z {
			z[i] -= 2 * math.Abs(s.at[i])
		}
		s.stretch(10, z)
		sum := 0.0
		for i := range z {
			z[i] = 100 * (z[i] + 2*math.Abs(s.at[i]))
			sum += z[i] * math.Sin(math.Sqrt(math.Abs(z[i])))
			z[i] /= 100
		}
		return 0.01*(418.9828872724339-sum/float64(s.d)) + 100*outside(z)
	}
}

// gallagher has so many peaks, the condition of the highest, and the width and half-width
// that the peaks are drawn in.
func gallagher(peaks int, condition, width, half float64) builder {
	return func(s setting) func([]float64) float64 {
		r := rotation(s.seed, s.d)
		conditions, heights := make([]float64, peaks), make([]float64, peaks)
		conditions[0], heights[0] = condition, 10
		for i, rank := range ranks(uniforms(peaks-1, s.seed)) {
			conditions[i+1] = math.Pow(1000, float64(rank)/float64(peaks-2))
			heights[i+1] = float64(i)/float64(peaks-2)*(9.1-1.1) + 1.1
		}
		drawn := uniforms(s.d*peaks, s.seed)
		scales, centers := make(matrix, peaks), make(matrix, peaks)
		for i := range peaks {
			scales[i] = make([]float64, s.d)
			for j, rank := range ranks(uniforms(s.d, s.seed+1000*i)) {
				scales[i][j] = math.Pow(conditions[i], s.share(rank)-0.5)
			}
			at := make([]float64, s.d)
			for k := range at {
				if at[k] = width*drawn[i*s.d+k] - half; i == 0 {
					at[k] *= 0.8
				}
			}
			if i == 0 {
				copy(s.at, at)
			}
			centers[i] = r.times(at)
		}
		return func(x []float64) float64 {
			turned, highest := r.times(x), 0.0
			for i := range peaks {
				sum := 0.0
				for j, v := range turned {
					sum += scales[i][j] * (v - centers[i][j]) * (v - centers[i][j])
				}
				highest = max(highest, heights[i]*math.Exp(-0.5/float64(s.d)*sum))
			}
			low := oscillate(10 - highest)
			return low*low + outside(x)
		}
	}
}

// ranks is the order that sorts x.
func ranks(x []float64) []int {
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		if x[a] < x[b] {
			return -1
		}
		return 1
	})
	return order
}

func katsuura(s setting) func([]float64) float64 {
	twist := s.twisted(100)
	return func(x []float64) float64 {
		d, product := float64(s.d), 1.0
		for i, v := range twist(s.shifted(x)) {
			sum := 0.0
			for j := 1; j <= 32; j++ {
				power := math.Exp2(float64(j))
				sum += math.Abs(power*v-math.Floor(power*v+0.5)) / power
			}
			product *= math.Pow(1+float64(i+1)*sum, 10/math.Pow(d, 1.2))
		}
		return 10/d/d*(product-1) + outside(x)
	}
}

func lunacek(s setting) func([]float64) float64 {
	const first = 2.5
	d := float64(s.d)
	size := 1 - 0.5/(math.Sqrt(d+20)-4.1)
	other := -math.Sqrt((first*first - 1) / size)
	twist := s.twisted(100)
	for i, g := range normals(s.d, s.seed) {
		s.at[i] = math.Copysign(0.5*first, g)
	}
	return func(x []float64) float64 {
		z := make([]float64, s.d)
		near, far := 0.0, 0.0
		for i := range z {
			hat := 2 * math.Copysign(1, s.at[i]) * x[i]
			near += (hat - first) * (hat - first)
			far += (hat - other) * (hat - other)
			z[i] = hat - first
		}
		waves := 0.0
		for _, v := range twist(z) {
			waves += math.Cos(2 * math.Pi * v)
		}
		return min(near, d+size*far) + 10*(d-waves) + 1e4*outside(x)
	}
}
