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

echo
echo "== completion times: every job of the published policies has to end at the published second"
CLARY_TRACES=$traces go test -count=1 -run 'Published' ./scheduler/sim/queue ./scheduler/sim/tiresias
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go build -o "$work/clary" ./cmd/clary

echo
echo "== rigid jobs with preemption: Pollux artifact, OSDI 2021; 64 GPUs, 30 s a start"
for file in "$traces"/pollux/workloads/*.csv; do
	echo "$(basename "$file" .csv):"
	for policy in tiresias clary; do
		"$work/clary" sim tiresias --workload "$file" --traces "$traces/pollux" --policy "$policy" | tail -n +"$([ $policy = tiresias ] && echo 1 || echo 2)"
	done
done

echo
echo "== queues: the simulator of Tiresias, NSDI 2019, on traces of Philly and ITP; preemption costs nothing"
for trace in ef06:128 philly_ee9e8c:160; do
	name=${trace%:*} gpus=${trace#*:}
	for published in "$traces/tiresias/${name}"_n*.job.csv; do
		awk -F, -v name="$(basename "$published")" 'NR==1 {for (i=1; i<=NF; i++) if ($i=="JCT") at=i; next} {sum+=$at} END {printf "published %-42s %9.1f s\n", name, sum/(NR-1)}' "$published"
	done
	for policy in fifo fifo-skip srtf srsf clary; do
		"$work/clary" sim queue --jobs "$traces/tiresias/${name}_job.csv" --gpus "$gpus" --policy "$policy" | tail -n +"$([ $policy = fifo ] && echo 1 || echo 2)"
	done
	echo "the same with 30 s for each start:"
	for policy in srtf clary; do
		"$work/clary" sim queue --jobs "$traces/tiresias/${name}_job.csv" --gpus "$gpus" --policy "$policy" --restart 30 | tail -n +2
	done
done
