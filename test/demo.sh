#!/usr/bin/env bash
# A whole cluster on this machine: three coordinators and two agents as processes of
# their own, with TLS between all of them. It processes handwritten digits, trains a network on
# them, evaluates and registers the model, scores the test set in bulk, serves two versions of it behind one
# endpoint, and cleans up. `make demo` runs it.
# Its last line is one JSON object.
set -euo pipefail
began=$SECONDS
. "$(dirname "$0")/cluster.sh" demo

say "three coordinators: the first makes the CA, the others join by a token that pins it"
coordinators

say "two agents"
agents n1 n2

say "process the raw digits as a job: hold out a tenth for validation, scale the pixels, profile them"
shown process --steps "$root/examples/digits/prepare.yaml" --profile --input "$root/examples/digits/train.csv.gz" --output s3://clary/digits/ \
  --cores 1 --name prepare-digits
shown ls s3://clary/digits/

say "train on them with two workers and two parameter servers; the model keeps the transform and gets a name"
train=(train --data s3://clary/digits/train/ --validation s3://clary/digits/validation/ --header --transform s3://clary/digits/transform/
  --network 128,64 --dropout 0.2 --rate 0.002 --epochs 30 --seed 42 --workers 2 --servers 2 --cores 0.25 --retries 2 --name digits --register digits)
shown "${train[@]}" --dry-run
shown "${train[@]}" --detach
shown job digits
shown wait digits || fail "the job did not succeed"
shown job digits
shown logs digits worker-0 --tail 3

say "evaluate it on 359 raw digits that it has never seen, beside which the figures and a page are kept"
shown evaluate model://digits@1 "$root/examples/digits/test.csv.gz" --html "$dir/evaluation.html" --fail-under accuracy=0.95 | tee "$dir/evaluation"
accuracy=$(awk '$1 == "accuracy" { printf "%.4f", $2 / 100 }' "$dir/evaluation")

say "approve the version and make it the champion"
shown models approve digits@1 --why "over 95 % on unseen digits"
shown models alias digits@1 champion
shown models show digits

say "score the same digits in bulk: pixels to the model's server, digit and prediction to the output"
shown transform --model model://digits:champion --input "$root/examples/digits/test.csv.gz" --gzip --split line --content-type text/csv \
  --input-filter '$[:-1]' --join input --output-filter '$[64,65]' --output s3://clary/digits/scored/ --cores 0.5 --name score-digits
shown cp s3://clary/digits/scored/test.csv.out "$dir/scored.csv"
scored=$(awk -F, '$1 == $2 { right++ } END { printf "%.4f", right / NR }' "$dir/scored.csv")
echo "the predictions are right in $scored of $(wc -l <"$dir/scored.csv") rows"
awk -v a="$accuracy" -v b="$scored" 'BEGIN { exit !(a >= 0.95 && a - b < 0.0001 && b - a < 0.0001) }' ||
  fail "accuracy $accuracy, and $scored of the scored rows: at least 0.95 is expected, and the same of both"

say "train a challenger, a smaller network on the same digits"
shown train --data s3://clary/digits/train/ --validation s3://clary/digits/validation/ --header --transform s3://clary/digits/transform/ \
  --network 48 --rate 0.002 --epochs 20 --seed 7 --workers 1 --servers 1 --cores 0.25 --name challenger --register digits

say "an endpoint with both: the champion gets nine requests of ten, the challenger one"
shown deploy --name live --variant champion=model://digits:champion:9 --variant challenger=model://digits@2:1 --cores 0.1 --memory 128MiB
zcat "$root/examples/digits/test.csv.gz" | cut -d, -f1-64 >"$dir/pixels.csv"
head -1 "$dir/pixels.csv" >"$dir/row.csv"
shown invoke live "$dir/row.csv" -v
shown invoke live "$dir/pixels.csv" --variant champion | tail -n +2 >"$dir/answers.csv"
served=$(paste -d, "$dir/answers.csv" <(zcat "$root/examples/digits/test.csv.gz" | cut -d, -f65) |
  awk -F, '$1 == $NF { right++ } END { printf "%.4f", right / NR }')
echo "its answers are right in $served of the same rows"
awk -v a="$served" -v b="$scored" 'BEGIN { exit !(a - b < 0.0001 && b - a < 0.0001) }' || fail "the endpoint is right in $served, and the transform in $scored"

say "ask it 500 times, shift the weights and scale while it is asked, and ask again"
shown invoke live "$dir/row.csv" --repeat 500 --parallel 4
"$clary" invoke live "$dir/row.csv" --during 5s --rate 200 --parallel 4 -o json >"$dir/load.json" &
load=$!
shown endpoint weights live champion=1 challenger=1
shown endpoint scale live challenger=2
shown endpoint status live
wait $load || fail "requests failed while the endpoint was changed: $(cat "$dir/load.json")"
shown invoke live "$dir/row.csv" --repeat 500 --parallel 4 -o json | tee "$dir/halves.json"
awk -F'[:,]' '/"challenger"/ { n = $2 } END { exit !(n > 175 && n < 325) }' "$dir/halves.json" || fail "of 500 requests the challenger is to get half"
shown endpoint delete live

say "clean up"
seconds=$((SECONDS - began))
stop
left=$(left_over)
[ -z "$left" ] || fail "processes are left over: $left"
rm -rf "$dir"
trap - EXIT
printf '{"demo":"ok","accuracy":%.4f,"served":%.4f,"seconds":%d}\n' "$accuracy" "$served" "$seconds"
