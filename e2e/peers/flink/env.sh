# Sourced by the scripts here; make sets BIN, CACHE and MILLRACE_KAFKA.
#   CPUS: the core that both are pinned to; BROKER_CPUS: the broker's. EVENTS: how many the topic holds.
: "${BIN:?the millrace binary}" "${CACHE:?folder for everything that is not kept}" "${MILLRACE_KAFKA:?folder of the jars of Kafka}"
export CPUS="${CPUS:-0}" BROKER_CPUS="${BROKER_CPUS:-1}" EVENTS="${EVENTS:-3000000}" ROUNDS="${ROUNDS:-5}"
export WORK="$CACHE/flink" PORT="${PORT:-19192}"
export BROKERS="127.0.0.1:$PORT" CLASSES="$CACHE/flink/job/flink-personalize-1.jar:$CACHE/flink/job/lib/*"
export PIPELINE="$here/pipeline.yaml" BROKER_PID_FILE="$WORK/broker/pid"
peer() { main=$1; shift; java -Xmx4g -cp "$CLASSES" "peers.personalize.$main" --brokers "$BROKERS" "$@"; }
topics() { java -cp "$MILLRACE_KAFKA/*" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn org.apache.kafka.tools.TopicCommand --bootstrap-server "$BROKERS" "$@"; }

command -v taskset > /dev/null || { echo "error: taskset (util-linux) is needed" >&2; exit 1; }
mkdir -p "$WORK"
HEAP=512m taskset -c "$BROKER_CPUS" sh "$here/../../../examples/kafka/broker/up.sh" "$PORT" "$WORK/broker"
trap 'sh "$here/../../../examples/kafka/broker/down.sh" "$WORK/broker"' EXIT

# The topic of both, filled once for each number of events.
loaded=$(cat "$WORK/loaded" 2> /dev/null || true)
if [ "$loaded" != "$EVENTS" ]; then
  rm -f "$WORK/loaded"
  topics --delete --if-exists --topic events
  while topics --list | grep -qx events; do sleep 1; done
  topics --create --topic events --partitions 6
  peer Generate --events "$EVENTS" --users 100000 --seed 1
  echo "$EVENTS" > "$WORK/loaded"
fi
