#!/usr/bin/env bash
# Runs each fuzz target of the repository for a few seconds, and the property tests on draws of their own: fuzz.sh [SECONDS].
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
seconds=${1:-5}
count=0
while IFS=: read -r file target; do
  echo "fuzz ${file%/*} $target"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "${seconds}s" "./${file%/*}"
  count=$((count + 1))
done < <(find . -name '*_test.go' -not -path './.*/*' -exec grep -Ho '^func Fuzz[A-Za-z0-9_]*' {} + | sed 's|^\./||; s|:func |:|' | sort)
[ $count -gt 0 ] || { echo "fuzz: there is no target" >&2; exit 1; }
mapfile -t properties < <(grep -rl --include='*_test.go' '"pgregory.net/rapid"' . | xargs -n1 dirname | sort -u)
RAPID_CHECKS=${RAPID_CHECKS:-1000} go test -count=1 -timeout 60m "${properties[@]}"
echo "fuzz: $count targets, $seconds s each, nothing found"
