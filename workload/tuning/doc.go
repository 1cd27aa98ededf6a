// Package tuning is the kind of job that looks for good parameters: a sweep. It tries
// configurations of a space, each a trial, and learns from what comes of them.
//
// A sweep with a trial template runs its trials itself, each as a training job. One without
// is a study: whoever asks runs them, and tells.
//
// All of it is pure. A Search is a sweep's rows and what they say to its sampler; it is
// asked, told, and follows the jobs that it has made, and answers with the rows and jobs to
// change. Whoever runs it (coordinator/sweeps) puts them into the log, and builds a new
// Search from the rows when that has failed.
package tuning
