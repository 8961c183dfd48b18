#!/usr/bin/env python3
"""Online logistic learners on one deterministic stream: examples/s on one thread, progressive log-loss, ROC-AUC.

    bench.py make  [--n 1000000]      writes data/stream.vw, data/stream.tsv, data/truth.npy, data/meta.json
    bench.py compare BENCH_LEARN      Vowpal Wabbit and Millrace, FTRL-proximal, from text; fails below 3 times or on a
                                      worse log-loss
    bench.py score PREDICTIONS        scores another program's predictions: one probability a line, in file order

stream.tsv: label (0 or 1) TAB 20 feature indices below 2^18, space-separated, all of value 1. stream.vw holds the
same examples with the same indices, so both index the same weights. Every score is progressive: predict, then learn.
The best reachable log-loss is that of the true probabilities the labels were drawn from ("oracle").
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.environ.get("DATA", os.path.join(HERE, "data"))
FIELDS, BITS = 20, 18
# distinct values a field can take: a few wide id-like fields, many narrow ones
CARDINALITY = [50_000, 20_000, 10_000, 5_000, 2_000, 1_000, 500, 200, 100, 100, 50, 50, 24, 20, 10, 10, 7, 5, 3, 2]


def cpu():
    r = resource.getrusage(resource.RUSAGE_SELF)
    return r.ru_utime + r.ru_stime


def path(name):
    return os.path.join(DATA, name)


def mix(z):
    """SplitMix64 finalizer on uint64 arrays."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def make(n, seed=1):
    os.makedirs(DATA, exist_ok=True)
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 1, 1 << BITS) * 0.5
    with open(path("stream.vw"), "w") as vw, open(path("stream.tsv"), "w") as tsv:
        truth = np.empty(n)
        for start in range(0, n, 100_000):
            m = min(100_000, n - start)
            index = np.empty((m, FIELDS), dtype=np.int64)
            for f, size in enumerate(CARDINALITY):
                value = np.floor(size * rng.random(m) ** 2.5).astype(np.uint64)  # small values are common
                index[:, f] = (mix(value + np.uint64(f << 32) + np.uint64(1)) >> np.uint64(64 - BITS)).astype(np.int64)
            margin = weights[index].sum(axis=1) - 2.0
            p = 1 / (1 + np.exp(-margin))
            truth[start:start + m] = p
            label = rng.random(m) < p
            for y, row in zip(label.tolist(), index.tolist()):
                features = " ".join(map(str, row))
                tsv.write(("1\t" if y else "0\t") + features + "\n")
                vw.write(("1 |f " if y else "-1 |f ") + features + "\n")
    np.save(path("truth.npy"), truth)
    y = labels(n)
    meta = {"n": n, "seed": seed, "positives": float(y.mean()), **{"oracle_" + k: v for k, v in score(truth, y).items()}}
    base = np.full(n, y.mean())
    meta["constant_log_loss"] = score(base, y)["log_loss"]
    json.dump(meta, open(path("meta.json"), "w"))
    print(json.dumps(meta))


def labels(n):
    y = np.empty(n)
    with open(path("stream.tsv")) as f:
        for i, line in zip(range(n), f):
            y[i] = line[0] == "1"
    return y


def score(p, y):
    p = np.clip(p, 1e-6, 1 - 1e-6)
    loss = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    rank = np.empty(len(p))
    order = np.argsort(p, kind="stable")
    rank[order] = np.arange(1, len(p) + 1)
    values, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)  # ties share their mean rank
    ends = np.cumsum(counts)
    rank = (ends - (counts - 1) / 2)[inverse]
    pos = y.sum()
    auc = (rank[y == 1].sum() - pos * (pos + 1) / 2) / (pos * (len(y) - pos))
    return {"log_loss": round(float(loss.mean()), 5), "log_loss_last_half": round(float(loss[len(y) // 2:].mean()), 5),
            "auc": round(float(auc), 5)}


# FTRL-Proximal with per-coordinate rates: VW and bench_learn get the same alpha, beta, l1, l2
ALPHA, BETA, L1, L2 = 0.2, 1.0, 0.0, 0.0  # best of 0.05, 0.1, 0.2, 0.5 for VW on this stream


def vw_worker(predictions, cache):
    """One pass in this process. VW's own driver reads and parses, so no Python runs per example."""
    import vowpalwabbit
    options = ["--ftrl", "--ftrl_alpha", str(ALPHA), "--ftrl_beta", str(BETA), "--l1", str(L1), "--l2", str(L2),
               "--loss_function", "logistic", "--link", "logistic", "-b", str(BITS), "--quiet", "--no_stdin",
               "-d", path("stream.vw")]
    if cache:
        options += ["--cache_file", path("stream.cache")]
    if predictions:
        options += ["-p", predictions]
    t, c = time.perf_counter(), cpu()
    workspace = vowpalwabbit.Workspace(arg_list=options)
    workspace.finish()
    print(json.dumps({"wall_s": time.perf_counter() - t, "cpu_s": cpu() - c}))


def vw_run(cache=False, predictions=""):
    """In a process of its own: {"wall_s", "cpu_s"}."""
    command = [sys.executable, __file__, "vw-worker", "--predictions", predictions, "--cache", str(int(cache))]
    return json.loads(subprocess.check_output(command).splitlines()[-1])


def compare(binary, repeat):
    """Both read their text file, by turns; then each writes its predictions once, which are scored alike."""
    n = json.load(open(path("meta.json")))["n"]
    both = {"vw": [], "millrace": []}
    for _ in range(repeat):
        both["vw"].append(n / vw_run()["cpu_s"])
        with open(path("stream.tsv")) as stream:
            out = subprocess.check_output([binary, "text"], stdin=stream)
        both["millrace"].append(json.loads(out)["examples_per_cpu_s"])
    vw_run(predictions=path("vw.pred"))
    with open(path("stream.tsv")) as stream, open(path("millrace.pred"), "w") as predictions:
        subprocess.check_call([binary, "text", "--predictions"], stdin=stream, stdout=predictions)
    y = labels(n)
    scores = {name: score(np.loadtxt(path(name + ".pred"), usecols=0), y) for name in both}
    for name, rates in both.items():
        print(json.dumps({"learner": name, "examples_per_cpu_s": [round(r) for r in sorted(rates)], **scores[name]}))
    for mode in ("memory", "model"):
        with open(path("stream.tsv")) as stream:
            print(subprocess.check_output([binary, mode], stdin=stream, text=True).strip())
    ratio = np.median(both["millrace"]) / np.median(both["vw"])
    worse = scores["millrace"]["log_loss"] - scores["vw"]["log_loss"]
    print(json.dumps({"millrace_over_vw": round(float(ratio), 2), "log_loss_difference": round(worse, 5)}))
    return ratio >= 3 and worse <= 0.00005


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("what", choices=["make", "compare", "score", "vw-worker"])
    a.add_argument("file", nargs="?")
    a.add_argument("--n", type=int)
    a.add_argument("--repeat", type=int, default=5)
    a.add_argument("--predictions", default="")
    a.add_argument("--cache", type=int, default=0)
    o = a.parse_args()
    if o.what == "make":
        make(o.n or 1_000_000)
    elif o.what == "compare":
        sys.exit(0 if compare(o.file, o.repeat) else 1)
    elif o.what == "vw-worker":
        vw_worker(o.predictions, o.cache)
    else:
        p = np.loadtxt(o.file, usecols=0)
        print(json.dumps(score(p, labels(len(p)))))


if __name__ == "__main__":
    main()
