#!/usr/bin/env bash
# A whole cluster on this machine: three coordinators and two agents as processes of
# their own, with TLS between all of them. It trains a network on handwritten digits,
# shows the job's life, scores the model it stored, and cleans up. `make demo` runs it.
# Its last line is one JSON object.
set -euo pipefail
began=$SECONDS
. "$(dirname "$0")/cluster.sh" demo

say "three coordinators: the first makes the CA, the others join by a token that pins it"
coordinators

say "two agents"
agents n1 n2

say "train on digits with two workers and two parameter servers"
shown train -f "$root/examples/digits/digits.yaml" --dry-run
shown train -f "$root/examples/digits/digits.yaml" --detach
shown job digits
shown wait digits || fail "the job did not succeed"
shown job digits
shown logs digits worker-0 --tail 3

say "score the stored model on 359 digits that it has never seen"
shown evaluate digits "$root/examples/digits/test.csv.gz"
accuracy=$("$clary" evaluate digits "$root/examples/digits/test.csv.gz" -o json | sed -n 's/.*"accuracy": *\([0-9.]*\).*/\1/p')
awk -v a="$accuracy" 'BEGIN { exit !(a >= 0.96) }' || fail "accuracy $accuracy: at least 0.96 is expected"
zcat <"$root/examples/digits/test.csv.gz" | sed -n 1,5p | cut -d, -f1-64 >"$dir/rows.csv"
shown predict digits --rows "$dir/rows.csv"

say "clean up"
seconds=$((SECONDS - began))
stop
left=$(left_over)
[ -z "$left" ] || fail "processes are left over: $left"
rm -rf "$dir"
trap - EXIT
printf '{"demo":"ok","accuracy":%.4f,"seconds":%d}\n' "$accuracy" "$seconds"
