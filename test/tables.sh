#!/usr/bin/env bash
# A table of two classes from raw CSV to a judged model, beside scikit-learn on the same splits, as docs/performance.md says:
#   TABLE=churn.csv LABEL=Churn DROP=customerID test/tables.sh
# TABLE_SEEDS (1 2 3 4 5) are the splits. scikit-learn comes from PyPI into an environment below bin/.
set -euo pipefail
. "$(dirname "$0")/cluster.sh" tables
: "${TABLE:?names the CSV file}" "${LABEL:?names the column to predict}"
python=$root/bin/tables/bin/python
if [ ! -x "$python" ]; then
  "${TABLE_PYTHON:-python3}" -m venv "$root/bin/tables"
  "$python" -m pip install -q scikit-learn
fi
coordinators >/dev/null
agents n1 >/dev/null
for seed in ${TABLE_SEEDS:-1 2 3 4 5}; do
  folder=$dir/split-$seed
  "$clary" prepare "$TABLE" --label "$LABEL" --drop "${DROP:-}" --test 0.2 --seed "$seed" --to "$folder" >/dev/null
  "$python" "$root/test/peers/table.py" "$folder" "$LABEL" | sed "s/^/split $seed: /"
  for shape in 16,0.2,30 32,0.3,40; do
    IFS=, read -r units dropout epochs <<<"$shape"
    job=net-$seed-$units
    "$clary" train --data "$folder/train" --header --label-column "$LABEL" --network "$units" --dropout "$dropout" --epochs "$epochs" \
      --validation-fraction 0 --seed "$seed" --cores 0.5 --name "$job" >/dev/null 2>&1
    printf 'split %s: network of %s units %s\n' "$seed" "$units" \
      "$("$clary" evaluate "$job" "$folder/test" -o json | sed -n 's/^ *"auc": \([0-9.]*\),/\1/p' | head -1 | xargs printf '%.4f')"
  done
done | tee "$dir/rows"
echo
awk '{ split($0, part, ": "); name = part[2]; sub(/ [^ ]*$/, "", name); sum[name] += $NF; n[name]++ }
  END { for (name in sum) printf "mean of %d: %-34s %.4f\n", n[name], name, sum[name] / n[name] }' "$dir/rows" | sort
