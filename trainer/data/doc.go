// Package data reads a channel's files into rows of float32: CSV and idx, plain or
// compressed by gzip. Rows are numbered over all files of a channel in order of their
// names, so that every worker, reading for itself, agrees on which rows are whose.
//
// Rubbish is refused with the file, the line and what would be right; nothing is
// guessed and no row is dropped in silence.
package data
