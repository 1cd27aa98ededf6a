#!/usr/bin/env bash
# Regenerates the *.pb.go below proto from the .proto files, with the plugins that
# internal/tools/go.mod pins, and the description of the API that the Python client reads. With --check nothing is written: it fails when the committed
# code is not what the .proto files say.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
"$root/internal/tools/setup.sh" protoc

bin=$root/.bin
GOBIN=$bin go install -C "$root/internal/tools" \
  google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc

out=$root/proto
python=$root/sdk/python/src/clary/api.pb
if [ "${1:-}" = --check ]; then
  out=$(mktemp -d)
  python=$out/api.pb
  trap 'rm -rf "$out"' EXIT
fi
(
  cd "$root/proto"
  PATH=$bin:$PATH protoc -I . --go_out="$out" --go_opt=paths=source_relative \
    --go-grpc_out="$out" --go-grpc_opt=paths=source_relative clary/v1/*.proto inference/*.proto
  protoc -I . --include_imports --descriptor_set_out="$python" clary/v1/jobs.proto clary/v1/sweeps.proto clary/v1/models.proto clary/v1/endpoints.proto
)
[ "${1:-}" = --check ] || exit 0

# The compiler's own version stands in a comment and changes nothing else.
for file in "$out"/{clary/v1,inference}/*.pb.go "$root"/proto/{clary/v1,inference}/*.pb.go; do
  name=${file#"$out"/}
  name=${name#"$root"/proto/}
  if ! diff -I '^// .*protoc  *v' "$out/$name" "$root/proto/$name" >/dev/null; then
    echo "proto/$name is not what its .proto file says: run 'make generate' and commit the result" >&2
    exit 1
  fi
done
if ! cmp -s "$python" "$root/sdk/python/src/clary/api.pb"; then
  echo "sdk/python/src/clary/api.pb is not what the .proto files say: run 'make generate' and commit the result" >&2
  exit 1
fi
echo "generated code is fresh"
