// Package worker runs the tasks of a training: RunWorker computes gradients, RunServer
// holds parameters. It sees files, environment variables and addresses, and nothing of
// the cluster that provides them.
//
// Every worker does the same rounds. Worker 0 in addition measures the validation rows,
// writes checkpoints, and at the end the model. Whoever is told to stop says so with its
// next push; the sum comes back to all with the same round, so all end after the same
// step, and worker 0's checkpoint is of that step.
package worker
