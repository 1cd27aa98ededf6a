package router

import "time"

// What is decided from values alone is tested as such.
type Sample = sample

var Stands = stands

func NewSample(good, bad int64, spent time.Duration) Sample { return sample{good, bad, spent} }
