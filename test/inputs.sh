#!/usr/bin/env bash
# What docs/performance.md says of inputs, measured on this machine: INPUT_MIB (2048) of
# random bytes in INPUT_FILES (16) objects, read in file, fast_file and pipe mode by a
# program as a job, through the embedded store and an agent as processes of their own.
# Each mode runs twice. `make bench-inputs` runs it; it needs root and twice the disk.
set -euo pipefail
. "$(dirname "$0")/cluster.sh" inputs
mib=${INPUT_MIB:-2048} files=${INPUT_FILES:-16}

# A task sees no file of this script's: its program is an argument.
program='
import os, sys, time
mode, submitted = sys.argv[1], float(sys.argv[2])
data, size, first = "input/data/", 0, None
names = [data + "data_0"] if mode == "pipe" else sorted(data + "data/" + n for n in os.listdir(data + "data"))
started, buffer = time.time(), bytearray(1 << 20)
for name in names:
    with open(name, "rb", buffering=0) as f:
        while n := f.readinto(buffer):
            first = first or time.time()
            size += n
print("%.2f %.2f %.2f %d" % (started - submitted, first - submitted, time.time() - submitted, size >> 20))
'

# resident FIELD PID is a figure of a process's memory in MiB, 0 if there is none.
resident() { awk -v field="$1:" '$1 == field { mib = int($2 / 1024) } END { print mib + 0 }' "/proc/$2/status" 2>/dev/null || echo 0; }

measure() { # measure MODE RUN
  local job=${1/_/-}-$2 most_agent=0 most_feeder=0 now feeder waiting options=()
  [ "$1" = file ] || options=(--input-option "data=$1")
  "$clary" run --name "$job" --detach --memory 2GiB --input data=s3://clary/bench/data/ "${options[@]}" -- \
    python3 -c "$program" "$1" "$(date +%s.%N)" >/dev/null
  "$clary" wait "$job" >/dev/null 2>&1 &
  waiting=$!
  while kill -0 $waiting 2>/dev/null; do
    now=$(resident VmRSS "${pids[1]}")
    [ "$now" -le $most_agent ] || most_agent=$now
    for feeder in "$dir"/n1/tasks/*/feeder.pid; do
      [ -f "$feeder" ] || continue
      now=$(resident VmHWM "$(cat "$feeder" 2>/dev/null || echo self)")
      [ "$now" -le $most_feeder ] || most_feeder=$now
    done
    sleep 0.1
  done
  wait $waiting || fail "$job failed: $("$clary" job "$job")"
  printf '%-10s %4s %10s %10s %10s %8s %12s %12s\n' "$1" "$2" $("$clary" logs "$job") $most_agent $most_feeder
}

server s1
until_true 30 "the coordinator" test -s "$dir/s1/admin.token"
until_true 30 "the login" "$clary" login "$first" --ca "$dir/s1/tls/ca.pem" --token-file "$dir/s1/admin.token"
agents n1
chmod 0755 "$dir"

say "$mib MiB in $files objects"
head -c $((mib * 1048576 / files)) /dev/urandom >"$dir/object"
for i in $(seq "$files"); do "$clary" cp "$dir/object" "s3://clary/bench/data/$(printf %03d "$i")" >/dev/null; done
rm "$dir/object"
sync # what the store has written is not to slow down the first that is measured

say "seconds from submission: to the program's start, its first byte, its last; peak memory in MiB"
printf '%-10s %4s %10s %10s %10s %8s %12s %12s\n' mode run start "first byte" done MiB agent feeder
for mode in fast_file pipe file; do
  for run in 1 2; do measure "$mode" "$run"; done
done
grep -h 'input staged' "$dir/n1.log" | sed 's/.*task=/staged: /'
echo
printf 'machine: %s, %s cores, load %s\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
