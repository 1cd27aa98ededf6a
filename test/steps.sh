#!/usr/bin/env bash
# What docs/performance.md says of ready-made steps, measured on this machine: STEPS_GIB (5) of CSV go through
# `clary prepare` (fill, scale, one-hot, a stratified split) and `clary profile`. `make bench-models` runs it; it needs
# three times the size on the disk of STEPS_DIR (a temporary folder), and clears it away. A JSON object a line.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
clary=$root/bin/clary gib=${STEPS_GIB:-5}
dir=$(mktemp -d "${STEPS_DIR:-${TMPDIR:-/tmp}}/clary-steps.XXXXXX")
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT

# A block of 64 MiB or a little more with every kind of cell, then as many as are asked for.
awk 'BEGIN {
  srand(7); split("red green blue", color, " "); split("north east south west", place, " ")
  while (size < 67108864) {
    line = sprintf("%d,%.3f,%s,%.5f,%s,%s,%d,%.2f,%s", 18 + int(70 * rand()), 1000 * exp(2 * rand()), color[1 + int(3 * rand())], rand() - .5,
      rand() < .02 ? "" : sprintf("%.1f", 100 * rand()), place[1 + int(4 * rand())], int(1e6 * rand()), 1e4 * rand(), rand() < .3 ? "yes" : "no")
    print line; size += length(line) + 1
  }
}' >"$dir/block"
{
  echo age,income,color,offset,score,place,visits,spent,left
  for ((i = 0; i < gib * 16; i++)); do cat "$dir/block"; done
} >"$dir/table.csv"
rm "$dir/block"
bytes=$(stat -c %s "$dir/table.csv")
cat >"$dir/plan.yaml" <<'PLAN'
label: left
steps:
- split: {test: 0.2, stratify: left, seed: 7}
- clean: {missing: median}
- scale: {to: [-1, 1]}
- one_hot: {}
PLAN

# measure NAME COMMAND... runs it, and prints what it took.
measure() {
  local name=$1 began pid peak=0 now ticks=0 fields
  shift
  began=$(date +%s.%N)
  "$@" >/dev/null &
  pid=$!
  while kill -0 $pid 2>/dev/null; do
    now=$(awk '$1 == "VmHWM:" { print int($2 / 1024) }' /proc/$pid/status 2>/dev/null || true)
    [ -z "$now" ] || peak=$now
    if fields=$(cut -d')' -f2 /proc/$pid/stat 2>/dev/null) && [ -n "$fields" ]; then
      # shellcheck disable=SC2086 # fields are words
      set -- $fields
      ticks=$((${12} + ${13}))
    fi
    sleep 0.2
  done
  wait $pid
  awk -v name="$name" -v bytes="$bytes" -v began="$began" -v ended="$(date +%s.%N)" -v ticks="$ticks" -v hertz="$(getconf CLK_TCK)" -v peak="$peak" 'BEGIN {
    printf "{\"steps\":\"%s\",\"gb\":%.2f,\"seconds\":%.1f,\"gb_per_second\":%.3f,\"gb_per_cpu_second\":%.3f,\"peak_mib\":%d}\n",
      name, bytes / 1e9, ended - began, bytes / 1e9 / (ended - began), bytes / 1e9 / (ticks / hertz), peak }'
}

measure prepare "$clary" prepare -f "$dir/plan.yaml" "$dir/table.csv" --to "$dir/prepared"
rm -rf "$dir/prepared"
measure profile "$clary" profile "$dir/table.csv" --label left
