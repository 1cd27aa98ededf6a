#!/usr/bin/env bash
# Prints the packages whose tests the race detector is for, or with --not the others: those of the pure rooms (internal/archtest) in
# which nothing is begun that runs beside anything else, neither by them and their tests nor by what of ours they import. There the
# detector finds nothing, and makes arithmetic several times slower. Those that are of use only with a built clary are left out.
set -euo pipefail
cd "$(dirname "$0")/../.."
pure='^(cluster|scheduler|tuner|workload|serving/autoscale|serving/experiment)(/|$)'
begins='^[[:space:]]*(defer )?go [A-Za-z_(]|\.(Go|AfterFunc|Parallel|RunParallel)\(|httptest\.|net\.Listen'
module=$(go list -m)
begun=$(grep -rlE --include='*.go' "$begins" . | xargs -n1 dirname | sort -u | sed "s|^\.|$module|")
[ -n "$begun" ] || { echo "concurrent: no package begins anything: what is looked for is wrong" >&2; exit 1; }
# A line for each test program: its package, and all that is linked into it.
go list -test -f '{{if .ForTest}}{{else}}{{.ImportPath}} {{join .Deps " "}}{{end}}' ./... | awk -v module="$module" -v pure="$pure" -v not="${1:-}" '
  FILENAME == ARGV[1] { begun[$1]; next }
  !sub(/\.test$/, "", $1) { next }
  {
    name = substr($1, length(module) + 2)
    if (name ~ /^test\/(e2e|rubbish|chaos)$/) next
    plain = name ~ pure && !($1 in begun)
    for (i = 2; plain && i <= NF; i++) if ($i in begun) plain = 0
    if (plain == (not == "--not")) print $1
  }' <(echo "$begun") -
