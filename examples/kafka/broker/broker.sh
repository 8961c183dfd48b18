#!/bin/sh
# A broker on loopback, in the foreground: broker.sh PORT CONTROLLER_PORT FOLDER. KAFKA: folder of the jars. It ends with
# its standard input, or by a signal; the first line that it prints is the process id of the broker itself. With DETACH the
# broker stays behind instead.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
port=$1 controller_port=$2 folder=$3
mkdir -p "$folder"
sed "s|@PORT@|$port|g; s|@CONTROLLER_PORT@|$controller_port|g; s|@DATA@|$folder/data|g" "$here/server.properties" > "$folder/server.properties"
log=-Dorg.slf4j.simpleLogger.defaultLogLevel=warn
if [ ! -f "$folder/data/meta.properties" ]; then
  java -cp "$KAFKA/*" $log -XX:TieredStopAtLevel=1 -XX:+UseSerialGC kafka.tools.StorageTool format --standalone \
    -t MillraceLocalBroker000 -c "$folder/server.properties" > "$folder/format.log" 2>&1 ||
    { cat "$folder/format.log" >&2; exit 1; }
fi
java -cp "$KAFKA/*" $log -Xms256m -Xmx"${HEAP:-256m}" -XX:+UseG1GC kafka.Kafka "$folder/server.properties" \
  > "$folder/broker.log" 2>&1 < /dev/null &
broker=$!
echo "$broker"
[ -z "${DETACH:-}" ] || exit 0
trap 'kill "$broker" 2>/dev/null; wait "$broker"; exit 0' TERM INT
while read -r _; do :; done
kill -9 "$broker" 2>/dev/null || true
