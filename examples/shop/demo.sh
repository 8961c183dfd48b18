#!/bin/sh
# The simulated shop, live: a worker with its page, and shoppers who talk to it over HTTP.
#   RATE events a second, USERS, ITEMS, SEED, SCENARIO (taste, homogeneous, drift, cold, position), FOR (2m; absent: until
#   Ctrl-C), PROBES (a second, of how fresh decisions are),
#   OUTPUT (text, json), ADDRESS, DATA (a folder that is emptied first).
set -eu
BIN=${BIN:?the folder of the binaries}
ADDRESS=${ADDRESS:-127.0.0.1:8080}
DATA=${DATA:?a folder for the log and the checkpoints}
here=$(cd "$(dirname "$0")" && pwd)

rm -rf "$DATA"
"$BIN/millrace" run "$here/pipeline.yaml" --data "$DATA" --listen "$ADDRESS" --quiet &
worker=$!
# The worker saves everything before it ends.
trap 'kill "$worker" 2>/dev/null || true; wait "$worker" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

echo "The shop is open: http://$ADDRESS/" >&2
"$BIN/shop" drive --address "$ADDRESS" \
  ${RATE:+--rate "$RATE"} ${USERS:+--users "$USERS"} ${ITEMS:+--items "$ITEMS"} ${SEED:+--seed "$SEED"} \
  ${SCENARIO:+--scenario "$SCENARIO"} ${FOR:+--for "$FOR"} ${PROBES:+--probes "$PROBES"} --output "${OUTPUT:-text}"
