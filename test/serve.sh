#!/usr/bin/env bash
# Measures the router beside nginx and HAProxy, all in front of the same backend (nginx with a constant answer), with wrk,
# everything on this machine. `make bench-serve` runs it, in rounds: in each, every server is asked in turn, so that what
# else the machine does hits all alike. SERVE_SECONDS (3) is how long each is asked, SERVE_ROUNDS (3) how often, SERVE_CONNECTIONS
# ("1 64 512") by how many. Peers are tuned as one would for this: two threads, kept connections to the backend, no access logs.
# Its last line is one JSON object.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
clary=${CLARY_BIN:-$root/bin/clary}
seconds=${SERVE_SECONDS:-3} rounds=${SERVE_ROUNDS:-3} connections=${SERVE_CONNECTIONS:-1 64 512}
dir=$(mktemp -d)
chmod 755 "$dir"
pids=()
trap 'for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done; wait; rm -rf "$dir"' EXIT
for tool in nginx haproxy wrk openssl curl python3; do
  command -v $tool >/dev/null || { echo "bench-serve: $tool is missing: make bench-serve installs it where there is apt-get" >&2; exit 1; }
done

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$dir/key.pem" -out "$dir/cert.pem" -days 2 -subj /CN=localhost 2>"$dir/openssl.log"
cat "$dir/cert.pem" "$dir/key.pem" >"$dir/both.pem"
common="error_log $dir/nginx.log; daemon off; worker_rlimit_nofile 8192; events { worker_connections 4096; }"
http="access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/f; uwsgi_temp_path $dir/u; scgi_temp_path $dir/s;"
cat >"$dir/backend.conf" <<END
worker_processes 1; pid $dir/backend.pid; $common
http { $http server { listen 127.0.0.1:7940 backlog=4096; default_type application/json; location / { return 200 '{"predictions":[0.5]}'; } } }
END
cat >"$dir/nginx.conf" <<END
worker_processes 2; pid $dir/nginx.pid; $common
http { $http
  upstream backend { server 127.0.0.1:7940; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 300s; }
  ssl_certificate $dir/cert.pem; ssl_certificate_key $dir/key.pem; ssl_protocols TLSv1.3; ssl_session_cache shared:s:10m;
  server {
    listen 127.0.0.1:7941 backlog=4096; listen 127.0.0.1:7951 ssl backlog=4096;
    location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
END
cat >"$dir/haproxy.cfg" <<END
global
  nbthread 2
  maxconn 4000
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  http-reuse always
frontend front
  bind 127.0.0.1:7942 backlog 4096
  bind 127.0.0.1:7952 ssl crt $dir/both.pem backlog 4096
  default_backend back
backend back
  server one 127.0.0.1:7940
END
cat >"$dir/table.json" <<'END'
{"endpoints": [{"name": "e", "public": true, "fleets": [{"variant": "v", "weight": 1, "replicas": [{"id": "a", "address": "127.0.0.1:7940"}]}]}]}
END
nginx -e "$dir/nginx.log" -c "$dir/backend.conf" & pids+=($!)
nginx -e "$dir/nginx.log" -c "$dir/nginx.conf" & pids+=($!)
haproxy -db -f "$dir/haproxy.cfg" 2>"$dir/haproxy.log" & pids+=($!)
"$clary" router --table "$dir/table.json" --listen 127.0.0.1:7943 2>"$dir/router.log" & pids+=($!)
"$clary" router --table "$dir/table.json" --listen 127.0.0.1:7953 --tls-cert "$dir/cert.pem" --tls-key "$dir/key.pem" 2>"$dir/router-tls.log" & pids+=($!)

path=/endpoints/e/invocations
for url in http://127.0.0.1:794{0,1,2,3} https://127.0.0.1:795{1,2,3}; do
  for _ in $(seq 100); do
    curl -fsk -d x -o "$dir/answer" "$url$path" && continue 2
    sleep 0.1
  done
  cat "$dir"/*.log >&2
  echo "bench-serve: nobody answers at $url" >&2
  exit 1
done
cat >"$dir/post.lua" <<'END'
wrk.method = "POST"
wrk.body = '{"instances":[[0.1,0.2,0.3,0.4]]}'
wrk.headers["Content-Type"] = "application/json"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %.1f %.0f %.0f %.0f %d\n", summary.requests / summary.duration * 1e6, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9), e.connect + e.read + e.write + e.status + e.timeout))
end
END
ask() { # ask NAME TLS CONNECTIONS URL
  local more=$(($3 / 128)) # many connections take a while to be made, with TLS above all
  wrk -t 1 -c "$3" -d "$((seconds + more))s" -s "$dir/post.lua" "$4$path" | sed -n "s/^RESULT/$1 $2 $3/p"
}
echo "== $(nproc) cores, $(nginx -v 2>&1 | sed 's/.*: //'), $(haproxy -v | sed -n '1s/ - .*//p'), load $(cut -d' ' -f1 /proc/loadavg)" >&2
for round in $(seq "$rounds"); do
  for n in $connections; do
    ask direct off "$n" http://127.0.0.1:7940
    ask nginx off "$n" http://127.0.0.1:7941
    ask haproxy off "$n" http://127.0.0.1:7942
    ask clary off "$n" http://127.0.0.1:7943
    ask nginx on "$n" https://127.0.0.1:7951
    ask haproxy on "$n" https://127.0.0.1:7952
    ask clary on "$n" https://127.0.0.1:7953
  done
  echo "round $round of $rounds is over" >&2
done >"$dir/results"

python3 - "$dir/results" <<'END'
import json, statistics, sys
runs = {}
for line in open(sys.argv[1]):
    name, tls, n, *numbers = line.split()
    runs.setdefault((tls, int(n)), {}).setdefault(name, []).append([float(x) for x in numbers])
median = statistics.median
def ratio(one, other):  # of what was measured in the same round
    return median(a[0] / max(b[0], 1) for a, b in zip(one, other))
rows, out = [], {"bench": "serve", "errors": 0, "of_haproxy": {}, "of_nginx": {}}
for (tls, n), servers in sorted(runs.items()):
    for name, got in servers.items():
        rate, p50, p99, p999, _ = (median(column) for column in zip(*got))
        out["errors"] += sum(int(g[4]) for g in got)
        rows.append(f"| {tls} | {n} | {name} | {rate:,.0f} | {p50 / 1000:.3f} | {p99 / 1000:.2f} | {p999 / 1000:.2f} | "
                    f"{ratio(got, servers['haproxy']):.2f} |")
    key = f"{n} tls {tls}"
    out["of_haproxy"][key] = round(ratio(servers["clary"], servers["haproxy"]), 2)
    out["of_nginx"][key] = round(ratio(servers["clary"], servers["nginx"]), 2)
    if tls == "off" and n == 1:
        out["p50_added_us"] = {name: round(median(a[1] - b[1] for a, b in zip(servers[name], servers["direct"]))) for name in ("nginx", "haproxy", "clary")}
for tls in ("off", "on"):
    if (tls, 64) in runs and (tls, 512) in runs:
        out[f"512_to_64_tls_{tls}"] = {name: round(ratio(runs[tls, 512][name], runs[tls, 64][name]), 2) for name in runs[tls, 64]}
print("| TLS | connections | server | requests/s | p50 ms | p99 ms | p99.9 ms | of HAProxy |")
print("|---|--:|---|--:|--:|--:|--:|--:|")
print("\n".join(rows))
print(json.dumps(out))
END
