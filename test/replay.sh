#!/usr/bin/env bash
# Replays published scheduling experiments with the published policies, which have to come out equal, and with
# Clary's own scheduler, and prints the figures side by side, as in docs/scheduling.md. CLARY_TRACES names the
# folder with the published traces. `make replay` runs it.
set -euo pipefail
cd "$(dirname "$0")/.."
traces=${CLARY_TRACES:-}
[ -n "$traces" ] || { echo "replay: skipped: CLARY_TRACES names no folder with the published traces"; exit 0; }

echo "== placement: Weng et al., Beware of Fragmentation, USENIX ATC 2023"
go run ./test/replay "$traces"
