#!/usr/bin/env bash
# gofumpt, go vet and staticcheck, at the versions that internal/tools/go.mod pins.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
bin=$root/.bin
GOBIN=$bin go install -C internal/tools mvdan.cc/gofumpt honnef.co/go/tools/cmd/staticcheck

failed=0
mapfile -t files < <(find . -name '*.go' -not -name '*.pb.go' -not -path './.*/*' -not -path './bin/*')
unformatted=$("$bin/gofumpt" -l "${files[@]}")
if [ -n "$unformatted" ]; then
  printf 'not formatted (run .bin/gofumpt -w on them):\n%s\n' "$unformatted"
  failed=1
fi
go vet ./... || failed=1
"$bin/staticcheck" ./... || failed=1
[ $failed = 0 ] && echo "lint: clean"
exit $failed
