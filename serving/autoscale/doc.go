// Package autoscale decides how many replicas a fleet shall have, and says why.
//
// It is pure: a Scaler is given the instant, how many replicas are wanted now, what was measured and
// the state that it returned last time, and answers with a number, a reason and the next state. The
// same code runs on the leader and in the simulation beside it (package sim).
//
// How it decides is put together from what is known to work: target tracking with a tolerance and
// a stabilization window as Kubernetes' HorizontalPodAutoscaler has them; the short window that answers
// bursts as Knative's KPA has it (docs/SCALING.md of its repository: stable window 60 s, panic window a
// tenth, threshold twice the ready replicas); cooldowns, steps and schedules as AWS Application Auto
// Scaling has them.
package autoscale
