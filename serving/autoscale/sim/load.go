package sim

import (
	"math"
	"math/rand/v2"
)

// Load draws rates of requests, one for each second.
type Load struct {
	Name string
	What string
	Draw func(seed uint64) []float64
}

const (
	minute = 60
	hour   = 60 * minute
)

// Loads are those that an autoscaler is judged by.
func Loads() []Load {
	return []Load{
		{"steps", "10, 100, 30, 150 and 10 requests a second, 30 minutes each", func(uint64) []float64 {
			var rates []float64
			for _, rate := range []float64{10, 100, 30, 150, 10} {
				rates = append(rates, flat(30*minute, rate)...)
			}
			return rates
		}},
		{"spikes", "20 a second for 4 hours, and 8 times 200 for one to three minutes", spikes},
		{"day", "from 10 a second at night to 150 in the afternoon, with noise of 10 %", func(seed uint64) []float64 {
			return noisy(day(10, 150), seed, 0.1, minute)
		}},
		{"noise", "60 a second for 4 hours, with noise of 30 % that lasts half a minute", func(seed uint64) []float64 {
			return noisy(flat(4*hour, 60), seed, 0.3, minute/2)
		}},
		{"office", "nothing at night, up to 60 a second by day, with noise of 20 %", func(seed uint64) []float64 {
			return noisy(office(60), seed, 0.2, minute)
		}},
	}
}

func flat(seconds int, rate float64) []float64 {
	rates := make([]float64, seconds)
	for i := range rates {
		rates[i] = rate
	}
	return rates
}

func spikes(seed uint64) []float64 {
	random := rand.New(rand.NewPCG(seed, 1))
	rates := flat(4*hour, 20)
	for i := range 8 {
		begin := i*30*minute + 5*minute + random.IntN(20*minute)
		for at := begin; at < begin+minute+random.IntN(2*minute); at++ {
			rates[at] = 200
		}
	}
	return rates
}

// day is a sine over 24 hours with its peak at 15:00.
func day(least, most float64) []float64 {
	rates := make([]float64, 24*hour)
	for i := range rates {
		rates[i] = least + (most-least)*(1+math.Cos(2*math.Pi*(float64(i)/hour-15)/24))/2
	}
	return rates
}

// office is half a sine from 7:00 to 19:00, and nothing else.
func office(most float64) []float64 {
	rates := make([]float64, 24*hour)
	for i := 7 * hour; i < 19*hour; i++ {
		rates[i] = most * math.Sin(math.Pi*float64(i-7*hour)/(12*hour))
	}
	return rates
}

// noisy multiplies rates by log-normal noise whose logarithm has a standard deviation and is
// correlated over so many seconds (a first-order autoregression).
func noisy(rates []float64, seed uint64, deviation, seconds float64) []float64 {
	random := rand.New(rand.NewPCG(seed, 2))
	keep := math.Exp(-1 / seconds)
	x := deviation * random.NormFloat64()
	for i := range rates {
		rates[i] *= math.Exp(x - deviation*deviation/2)
		x = keep*x + deviation*math.Sqrt(1-keep*keep)*random.NormFloat64()
	}
	return rates
}
