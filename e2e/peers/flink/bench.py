"""Drains the topic with every variant of both sides, by turns, and compares what they used. Environment: see env.sh.

One JSON line a run. The first output of each variant is checked as a whole; later ones of Millrace must have the same digests."""
import json
import os
import statistics

import peers

# State backend, and how events get to the thread of their user: `forward` is without an exchange, right for one thread only.
FLINK_VARIANTS = [("hashmap", "forward"), ("hashmap", "keyby"), ("rocksdb", "keyby")]


def run_flink(number, backend, exchange):
    topic = f"examples-{peers.RUN}{number}"
    command, _ = peers.flink_job(backend, exchange, topic)
    line, used = peers.drain(command, os.path.join(peers.WORK, "flink.log"))
    if line["events"] != peers.EVENTS:
        raise SystemExit(f"error: Flink read {line['events']} events of {peers.EVENTS}")
    return topic, {**line, **used}


def run_millrace(number):
    prefix = f"millrace-peer-{peers.RUN}{number}."
    command, data = peers.millrace_run(prefix)
    summary, used = peers.drain(command, os.path.join(peers.WORK, "millrace.log"))
    model = summary["models"]["ctr"]
    result = {"examples": model["examples"], "positives": model["positives"], **summary["digests"]}
    if summary["events"]["read"] != peers.EVENTS:
        raise SystemExit(f"error: Millrace read {summary['events']['read']} events of {peers.EVENTS}")
    return prefix, data, {**used, "result": result}


def all_runs():
    """Runs by variant, in the order of rounds."""
    runs = {}
    for n in range(peers.ROUNDS):
        for backend, exchange in FLINK_VARIANTS:
            topic, run = run_flink(f"{n}-{backend}-{exchange}", backend, exchange)
            keep(runs, f"flink {backend} {exchange}", n, run)
            if n == 0:
                peers.flink_check(topic)
            peers.delete_topics(topic)
        prefix, data, run = run_millrace(n)
        keep(runs, "millrace", n, run)
        if n == 0:
            peers.millrace_check(data)
        elif run["result"] != runs["millrace"][0]["result"]:
            raise SystemExit("error: Millrace's result is another one than in the first round")
        peers.delete_topics(prefix.replace(".", "[.]") + ".*")
    return runs


def keep(runs, variant, n, run):
    print(json.dumps({"variant": variant, "round": n, **run}), flush=True)
    runs.setdefault(variant, []).append(run)


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(head, rows):
    for row in [head, ["---"] * len(head), *rows]:
        print("| " + " | ".join(row) + " |")
    print()


def report(runs):
    print(f"\nMedian (least to most) of {peers.ROUNDS} rounds of {peers.EVENTS} events.\n")
    fields = [("events_per_s", 0), ("cpu_s_per_million", 2), ("warm_cpu_s_per_million", 2),
              ("process_events_per_s", 0), ("process_cpu_s_per_million", 2), ("broker_cpu_s_per_million", 2), ("peak_rss_mb", 0)]
    heads = ["", "events/s of the drain", "CPU s per million, drain", "CPU s per million, warm half",
             "events/s, whole process", "CPU s per million, whole process", "the broker's CPU s per million", "peak MB"]
    rows = []
    for variant, of in runs.items():
        rows.append([variant] + [spread([r[f] for r in of], d) if f in of[0] else "" for f, d in fields])
    table(heads, rows)
    print("Flink / Millrace, of runs of the same round. Millrace is always the whole process, from exec to exit.\n")
    compared = [("CPU, warm half", "warm_cpu_s_per_million", "process_cpu_s_per_million"),
                ("CPU, drain", "cpu_s_per_million", "process_cpu_s_per_million"),
                ("CPU, whole process", "process_cpu_s_per_million", "process_cpu_s_per_million"),
                ("time of the warm half", "warm_events_per_s", "process_events_per_s"),
                ("time of the drain", "events_per_s", "process_events_per_s"),
                ("peak memory", "peak_rss_mb", "peak_rss_mb")]
    flinks = [variant for variant in runs if variant != "millrace"]
    rows = []
    for name, theirs, ours in compared:
        row = [name]
        for variant in flinks:
            pairs = zip(runs[variant], runs["millrace"])
            # Of rates, the inverse is the time.
            ratios = [f[theirs] / m[ours] if "events_per" not in theirs else m[ours] / f[theirs] for f, m in pairs]
            row.append(spread(ratios, 2))
        rows.append(row)
    table(["", *flinks], rows)


if __name__ == "__main__":
    report(all_runs())
