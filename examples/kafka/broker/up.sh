#!/bin/sh
# Starts broker.sh in the background, and waits until it answers: up.sh PORT FOLDER. KAFKA or MILLRACE_KAFKA: folder of the jars.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
port=$1 folder=$2
export KAFKA="${KAFKA:-$MILLRACE_KAFKA}"
mkdir -p "$folder"
if [ -f "$folder/pid" ] && kill -0 "$(cat "$folder/pid")" 2>/dev/null; then
  echo "a broker is up on $folder"
  exit 0
fi
DETACH=1 sh "$here/broker.sh" "$port" $((port + 1)) "$folder" > "$folder/pid"
tries=0
until java -cp "$KAFKA/*" org.apache.kafka.tools.TopicCommand \
  --bootstrap-server "127.0.0.1:$port" --list > /dev/null 2>&1; do
  tries=$((tries + 1))
  if [ "$tries" -gt 60 ] || ! kill -0 "$(cat "$folder/pid")" 2>/dev/null; then
    tail -20 "$folder/broker.log" >&2
    exit 1
  fi
  sleep 1
done
echo "a Kafka broker answers on 127.0.0.1:$port; its data is in $folder; stop it with make kafka-down"
