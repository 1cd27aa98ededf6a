package strictjson

import "strings"

// Nearest returns the candidate that a writer of name most likely meant, the first of
// equals, or "" if none is near: at most a third of its letters away, in letters
// left out, put in, changed or swapped (the optimal string alignment distance).
func Nearest(name string, candidates []string) string {
	if len(name) > 64 {
		return ""
	}
	best, least := "", 1+max(1, len(name)/3)
	for _, candidate := range candidates {
		distance := alignment(fold(name), fold(candidate))
		if distance < least {
			best, least = candidate, distance
		}
	}
	return best
}

// fold makes maxRuntime, max-runtime and max_runtime alike.
func fold(name string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(name))
}

func alignment(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
