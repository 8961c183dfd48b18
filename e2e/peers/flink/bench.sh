#!/bin/sh
# Drains one topic with Flink and with Millrace, by turns: `make bench-flink` (EVENTS, ROUNDS). What is compared is in README.md.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
python3 "$here/bench.py"
