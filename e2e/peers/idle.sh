#!/bin/sh
# A worker with nothing to do: milliseconds until it is ready, and its resident memory once it is idle.
#
#   idle.sh BIN [PIPELINE [ROUNDS]]    BIN: the `millrace` binary. Needs Linux, curl and GNU date.
#
# Fails where readiness takes 1 s or longer, or more than 40 MiB are resident. PIPELINE must have one source, `events`;
# the default one has 8 partitions and a model with 2^18 weights.
set -eu
bin=${1:?usage: idle.sh BIN [PIPELINE [ROUNDS]]}
rounds=${3:-5}
max_ready_ms=1000
max_resident_kib=$((40 * 1024))
settle_s=3

dir=$(mktemp -d)
worker=
cleanup() {
  [ -z "$worker" ] || kill -9 "$worker" 2>/dev/null || true
  rm -rf "$dir"
}
trap cleanup EXIT

echo 'k1: 00112233445566778899aabbccddeeff' >"$dir/keys.txt"
printf '%s\n' '{"type":"view","ts":1750000000000,"user":"u1","sku":"a","slot":"home"}' \
  '{"type":"click","ts":1750000001000,"user":"u1","sku":"a"}' >"$dir/events.jsonl"
cat >"$dir/pipeline.yaml" <<'YAML'
apiVersion: millrace.dev/v1alpha1
kind: PersonalizationPipeline
metadata: {name: idle}
spec:
  partitions: 8
  privacy:
    pseudonymKeys: {file: keys.txt, active: k1}
    user: {field: user}
    consent: {assumed: two invented events}
  sources:
  - name: events
    file: {path: events.jsonl}
    format: Json
    eventTime: {field: ts, notBefore: "2025-01-01T00:00:00Z", notAfter: "2026-01-01T00:00:00Z"}
    idleAfter: 1s
    events:
    - name: impression
      when: {type: view}
      fields: {items: sku, placement: slot}
    - name: click
      when: {type: click}
      fields: {items: sku}
  features:
    clicks: {count: click}
    lastItems: {lastN: click, of: item, n: 3}
  outcomes:
    click: {event: click, join: item, within: 10m}
  models:
  - name: ctr
    outcome: click
    features: [clicks, lastItems, item, placement]
    learner: {ftrl: {bits: 18}}
YAML
pipeline=${2:-$dir/pipeline.yaml}

now_ms() { echo $(($(date +%s%N) / 1000000)); }

# Starts the worker on a port that is free, and sets `worker` and `ready_ms`.
start() {
  for attempt in 1 2 3 4 5; do
    port=$((20000 + ($$ + $(date +%N | sed 's/^0*//') / 1000 + attempt) % 40000))
    begin=$(now_ms)
    "$bin" run "$pipeline" --source "events=$dir/events.jsonl" --data "$dir/data" --quiet \
      --metrics-address "127.0.0.1:$port" >"$dir/out" 2>"$dir/err" &
    worker=$!
    while kill -0 "$worker" 2>/dev/null; do
      if curl -fsS -o "$dir/answer" --max-time 1 "http://127.0.0.1:$port/readyz" 2>/dev/null; then
        ready_ms=$(($(now_ms) - begin))
        return
      fi
      [ $(($(now_ms) - begin)) -lt 30000 ] || break
      sleep 0.005
    done
    kill -9 "$worker" 2>/dev/null || true
  done
  cat "$dir/err" >&2
  echo "error: the worker did not become ready" >&2
  exit 1
}

failed=0
for round in $(seq "$rounds"); do
  start
  sleep "$settle_s"
  resident_kib=$(awk '/^VmRSS:/ {print $2}' "/proc/$worker/status")
  threads=$(awk '/^Threads:/ {print $2}' "/proc/$worker/status")
  kill -TERM "$worker"
  wait "$worker" || { cat "$dir/err" >&2; echo "error: it did not stop in good order" >&2; exit 1; }
  worker=
  echo "round $round: ready after $ready_ms ms, $((resident_kib / 1024)).$((resident_kib % 1024 * 10 / 1024)) MiB resident, $threads threads"
  [ "$ready_ms" -lt "$max_ready_ms" ] && [ "$resident_kib" -le "$max_resident_kib" ] || failed=1
done
[ "$failed" = 0 ] || { echo "error: the target is to be ready within $max_ready_ms ms and to stay within $((max_resident_kib / 1024)) MiB" >&2; exit 1; }
