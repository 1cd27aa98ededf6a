#!/usr/bin/env bash
# Batch transform beside one process of the same scorer: the rows a second of a Python scorer that
# reads a file, and of a transform that has one server of it for each core. Both are measured in turns,
# TRANSFORM_ROUNDS (3) times, and the best of each counts: the rest of the machine disturbs both, and
# only ever downwards. The second part of `make bench-models`. Its last line is one JSON object.
set -euo pipefail
. "$(dirname "$0")/cluster.sh" transform
cores=${TRANSFORM_CORES:-$(nproc)}
rows=${TRANSFORM_ROWS:-40000}
rounds=${TRANSFORM_ROUNDS:-3}
python=${TRANSFORM_PYTHON:-/usr/bin/python3} # the same one for both

cat >"$dir/scorer.py" <<'PY'
"""Scores rows of 64 numbers by ten weighted sums: as a server, or a file by itself."""
import http.server, os, sys, time

weights = [[((i * 31 + k * 17) % 23 - 11) / 7 for i in range(64)] for k in range(10)]

def score(line):
    row = [float(text) for text in line.split(",")]
    sums = [sum(a * b for a, b in zip(row, column)) for column in weights]
    return "%d,%.6g" % (max(range(10), key=sums.__getitem__), max(sums))

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body go out together, or the second waits for the first to be acknowledged

    def answer(self, code, text=b""):
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        self.answer(200 if self.path == "/ping" else 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.answer(200, "\n".join(score(line) for line in body.split("\n")).encode())

    def log_message(self, *args):
        pass

if len(sys.argv) > 2:
    began, lines = time.time(), open(sys.argv[1]).read().splitlines()
    with open(sys.argv[2], "w") as out:
        for line in lines:
            out.write(score(line) + "\n")
    print(len(lines) / (time.time() - began))
else:
    http.server.ThreadingHTTPServer(("", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
PY

say "$rows rows of digits"
zcat <"$root/examples/digits/test.csv.gz" | cut -d, -f1-64 >"$dir/digits.csv"
for _ in $(seq $((rows / $(wc -l <"$dir/digits.csv") + 1))); do cat "$dir/digits.csv"; done | head -n "$rows" >"$dir/rows.csv"
server s1
until_true 30 "the coordinator" test -s "$dir/s1/admin.token"
until_true 30 "the login" "$clary" login "$first" --ca "$dir/s1/tls/ca.pem" --token-file "$dir/s1/admin.token"
"$clary" token create --join agent --token-file "$dir/agent.token"
agent n1 --cores $((4 * cores))
until_true 30 "a ready node" ready_nodes 1
mkdir "$dir/objects"
split -n "l/2" "$dir/rows.csv" "$dir/objects/part-"
for i in $(seq 2 "$cores"); do
  for part in "$dir"/objects/part-a?; do cp "$part" "$part-$i"; done
done

# best keeps the larger of two numbers.
best() { awk -v a="$1" -v b="$2" 'BEGIN { print (a > b ? a : b) }'; }

alone=0 rate=0
for round in $(seq "$rounds"); do
  say "round $round: one process of the scorer over one file, then $cores servers over $((2 * cores)) objects, $cores times as many rows"
  one=$("$python" "$dir/scorer.py" "$dir/rows.csv" "$dir/want.csv")
  echo "one process: $one rows/s"
  shown transform --script "$dir/scorer.py" --python "$python" --input "$dir/objects" --output "s3://bench/scored-$round/" --split line --content-type text/csv \
    --max-payload 64KiB --max-concurrent 2 --instances "$cores" --cores 1 --name "bench-$round"
  all=$("$clary" job "bench-$round" -o json | sed -n 's/.*"records_per_second": *\([0-9.e+]*\).*/\1/p' | awk '{ sum += $1 } END { print sum }')
  echo "$cores servers: $all rows/s"
  "$clary" cp -r "s3://bench/scored-$round/" "$dir/scored-$round"
  for i in "" $(seq -f "-%g" 2 "$cores"); do
    cat "$dir/scored-$round/part-aa$i.out" "$dir/scored-$round/part-ab$i.out" | cmp - "$dir/want.csv" || fail "the transform's answers are others"
  done
  alone=$(best "$alone" "$one") rate=$(best "$rate" "$all")
done
echo "the answers are the same, byte by byte"
stop
awk -v a="$alone" -v r="$rate" -v c="$cores" -v n="$rows" -v k="$rounds" \
  'BEGIN { printf "{\"transform\":\"ok\",\"cores\":%d,\"rounds\":%d,\"alone_rows_per_second\":%.0f,\"transform_rows_per_second\":%.0f,\"of_all_cores\":%.2f,\"rows\":%d}\n", c, k, a, r, r / a / c, n * c }'
