#!/usr/bin/env bash
# Runs each fuzz target of the repository for a few seconds: fuzz.sh [SECONDS].
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
echo "fuzz: $count targets, $seconds s each, nothing found"
