// Package checkpoint keeps a training on disk: checkpoints, from which it goes on to the
// same bit, and the model that it ends with.
//
// A checkpoint is one file: a magic number, a JSON header, the weights and the
// optimiser's state as little-endian float32, and the SHA-256 of all that. It appears by
// rename once it is synced. A damaged file is refused by name, and the one before it is
// used. A model is a folder of manifest.json and weights.bin; the manifest names the
// checksum of the weights.
package checkpoint
