#!/bin/sh
# Millrace's learner against Vowpal Wabbit, on the same text file, by turns. Data and venv go to the user's cache folder.
# Fails if Millrace is below 3 times Vowpal Wabbit's examples per CPU-second, or has a worse log loss.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace}/learners
python=$cache/venv/bin/python
mkdir -p "$cache"
if ! "$python" -c 'import numpy, vowpalwabbit' 2>/dev/null; then
    python3 -m venv "$cache/venv"
    "$python" -m pip install --quiet -r "$here/requirements.txt"
fi
export DATA="$cache/data"
[ -f "$DATA/meta.json" ] || "$python" "$here/bench.py" make
cd "$here/../../.."
cargo build --release --quiet -p millrace-engine --example bench_learn
exec "$python" "$here/bench.py" compare "${CARGO_TARGET_DIR:-target}/release/examples/bench_learn" "$@"
