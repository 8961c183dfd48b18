"""Kills both sides in the middle of the drain, by turns, and compares the seconds to what they write after it."""
import json
import os
import subprocess

import peers
from bench import spread, table

# Half of the examples that the events become: .76 of them are impressions of users who agreed.
AFTER = str(int(peers.EVENTS * .38))
# How the path of a file ends that tells of a checkpoint.
OF_FLINK, OF_MILLRACE = "_metadata", r"/profile/\d+/(base|delta)-[\d-]+"


def killed(peer, topic, checkpoints, checkpoint, command, *args):
    recover = peers.java("Recover", "--peer", peer, "--out", topic, "--checkpoints", checkpoints, "--checkpoint",
                         checkpoint, "--after", AFTER, *args, "--", *peers.PINNED, *command, options=["-Xmx1g"])
    done = subprocess.run(["taskset", "-c", os.environ["BROKER_CPUS"], *recover], cwd=peers.WORK,
                          stdout=subprocess.PIPE, stderr=open(os.path.join(peers.WORK, "recover.log"), "w"), text=True)
    if done.returncode != 0:
        raise SystemExit(f"error: {peer} did not recover: see recover.log, first.log and second.log in {peers.WORK}")
    return json.loads(done.stdout)


def flink(n, backend):
    topic = f"examples-{peers.RUN}{n}-{backend}"
    command, checkpoints = peers.flink_job(backend, "keyby", topic)
    # Without a checkpoint yet, --restore begins anew. Restored at its end offsets, a bounded source idles: --quiet-end.
    # Compressed heap state is restored many times faster: its best case.
    run = killed("flink", topic, checkpoints, OF_FLINK, command + ["--restore", "--compress"], "--quiet-end")
    peers.flink_check(topic, "--partial")
    peers.delete_topics(topic)
    return run


def millrace(n):
    prefix = f"millrace-peer-{peers.RUN}{n}."
    command, data = peers.millrace_run(prefix)
    run = killed("millrace", prefix + "examples.ctr", data, OF_MILLRACE, command)
    peers.millrace_check(data)
    peers.delete_topics(prefix.replace(".", "[.]") + ".*")
    return run


def main():
    runs = {}
    for n in range(peers.ROUNDS):
        for variant, run in [("flink hashmap", lambda: flink(n, "hashmap")), ("flink rocksdb", lambda: flink(n, "rocksdb")),
                             ("millrace", lambda: millrace(n))]:
            result = run()
            print(json.dumps({"variant": variant, "round": n, **result}), flush=True)
            runs.setdefault(variant, []).append(result)
    print(f"\nSeconds after the kill, median (least to most) of {peers.ROUNDS} rounds of {peers.EVENTS} events.\n")
    fields = [("mark_main_s", "main() reached"), ("mark_event_s", "first event read"), ("first_output_s", "first example"),
              ("first_new_output_s", "first example that was not there before"),
              ("first_committed_s", "first that readers count"), ("checkpoint_age_s", "age of the checkpoint at the kill")]
    rows = [[name] + [spread([r[f] for r in of], 2) if f in of[0] else "" for f, _ in fields] for name, of in runs.items()]
    table(["", *(called for _, called in fields)], rows)
    print("Flink / Millrace, in the same round.\n")
    rows = []
    for f, called in fields[2:5]:
        pairs = {name: list(zip(of, runs["millrace"])) for name, of in runs.items() if name != "millrace"}
        rows.append([called] + [spread([theirs[f] / ours[f] for theirs, ours in of], 1) for of in pairs.values()])
    table(["", "flink hashmap", "flink rocksdb"], rows)


if __name__ == "__main__":
    main()
