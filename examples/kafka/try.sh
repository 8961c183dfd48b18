#!/bin/sh
# Puts the tour's lines into topics of the broker of `make kafka-up`, and runs the pipeline over them to their end.
# BIN: the millrace binary. DATA: its folder, which is emptied. MILLRACE_KAFKA: folder of the broker's jars.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
server=${SERVER:-127.0.0.1:9092}
tool() {
  class=$1
  shift
  java -cp "$MILLRACE_KAFKA/*" -Dorg.slf4j.simpleLogger.defaultLogLevel=error -XX:+UseSerialGC \
    "org.apache.kafka.tools.$class" --bootstrap-server "$server" "$@"
}
for topic in $(tool TopicCommand --list | grep -x -e identity -e content -e interaction -e 'millrace\.tour\..*' || true); do
  tool TopicCommand --delete --topic "$topic" > /dev/null
done
for topic in identity content interaction; do
  tool TopicCommand --create --topic "$topic" --partitions 2 > /dev/null
done
send() { tool ConsoleProducer --topic "$1" > /dev/null; }
grep '"type":"consent"' "$here/../tour/events.jsonl" | send identity
grep '"type":"shown"' "$here/../tour/events.jsonl" | send content
grep -v -e '"type":"consent"' -e '"type":"shown"' "$here/../tour/events.jsonl" | send interaction
rm -rf "$DATA"
"$BIN" run "$here/pipeline.yaml" --until-end --quiet --data "$DATA"
