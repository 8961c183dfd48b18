#!/bin/sh
# Stops what up.sh started: down.sh FOLDER. Its data stays.
set -eu
folder=$1
[ -f "$folder/pid" ] || { echo "no broker is up on $folder"; exit 0; }
pid=$(cat "$folder/pid")
kill "$pid" 2>/dev/null || true
tries=0
while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 30 ]; do tries=$((tries + 1)); sleep 1; done
kill -9 "$pid" 2>/dev/null || true
rm -f "$folder/pid"
