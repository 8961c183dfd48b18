"""What bench.py and recover.py share: commands of both sides, fresh topics and folders, processes and what they used."""
import json
import os
import shutil
import subprocess
import time

ENV = os.environ
WORK, BROKERS, CLASSES, PIPELINE = ENV["WORK"], ENV["BROKERS"], ENV["CLASSES"], ENV["PIPELINE"]
EVENTS, ROUNDS = int(ENV["EVENTS"]), int(ENV["ROUNDS"])
PINNED = ["taskset", "-c", ENV["CPUS"]]
FLINK_HEAP = ["-Xms2g", "-Xmx2g", "-XX:+UseParallelGC"]
CLOCK_TICK = os.sysconf("SC_CLK_TCK")
# Names of this process' topics: a topic of before may still be on its way out.
RUN = f"{int(time.time())}-"


def java(main, *args, options=("-Xmx4g",)):
    return ["java", *options, "-cp", CLASSES, f"peers.personalize.{main}", "--brokers", BROKERS, *args]


def flink_job(backend, exchange, topic):
    """(command, folder of its checkpoints); the folder and the topic are new."""
    checkpoints = fresh_folder("flink-checkpoints")
    kafka_topics("--create", "--topic", topic, "--partitions", "6")
    return java("Job", "--bounded", "--backend", backend, "--exchange", exchange, "--checkpoints", checkpoints,
                "--out", topic, options=FLINK_HEAP), checkpoints


def millrace_run(prefix):
    """(command, data folder); the folder is new, and the run makes its topics."""
    data, pipeline = fresh_folder("millrace-data"), os.path.join(WORK, "pipeline.yaml")
    text = open(PIPELINE).read().replace("127.0.0.1:9092", BROKERS).replace("millrace-peer.", prefix)
    open(pipeline, "w").write(text)
    shutil.copy(os.path.join(os.path.dirname(PIPELINE), "keys.txt"), WORK)
    return [ENV["BIN"], "run", pipeline, "--until-end", "--threads", "1", "--data", data, "--quiet",
            "--output", "json"], data


def millrace_check(data):
    """SAME, or the reason why not."""
    listing = subprocess.Popen([ENV["BIN"], "examples", "--data", data, "--model", "ctr", "--output", "json"],
                               stdout=subprocess.PIPE)
    return say_same(subprocess.run(java("CheckMillrace"), stdin=listing.stdout, capture_output=True, text=True))


def flink_check(topic, *args):
    return say_same(subprocess.run(java("Check", "--out", topic, *args), capture_output=True, text=True))


def say_same(done):
    print("  " + done.stdout.strip().replace("\n", "\n  "), flush=True)
    if done.returncode != 0 or not done.stdout.strip().endswith("SAME"):
        raise SystemExit(f"error: what was written is not what the rule gives: {done.stderr}")


def kafka_topics(*args):
    subprocess.run(["java", "-cp", ENV["MILLRACE_KAFKA"] + "/*", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                    "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", BROKERS, *args],
                   check=True, stdout=subprocess.DEVNULL)


def delete_topics(pattern):
    kafka_topics("--delete", "--if-exists", "--topic", pattern)


def fresh_folder(name):
    path = os.path.join(WORK, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def broker_cpu_s():
    pid = open(ENV["BROKER_PID_FILE"]).read().strip()
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICK


def drain(command, log):
    """Runs a process to its end on the pinned core: (the last line that it printed, what it used)."""
    broker, began = broker_cpu_s(), time.monotonic()
    with open(log, "w") as err:
        process = subprocess.Popen(PINNED + command, stdout=subprocess.PIPE, stderr=err, text=True)
        out = process.stdout.read().strip()
        _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    if status != 0:
        raise SystemExit(f"error: {command[0]} failed: see {log}")
    cpu = used.ru_utime + used.ru_stime
    return json.loads(out.splitlines()[-1]), {
        "process_wall_s": round(wall, 2), "process_cpu_s": round(cpu, 2),
        "process_cpu_s_per_million": round(cpu / EVENTS * 1e6, 3), "process_events_per_s": round(EVENTS / wall),
        "peak_rss_mb": used.ru_maxrss // 1024,
        "broker_cpu_s_per_million": round((broker_cpu_s() - broker) / EVENTS * 1e6, 3)}
