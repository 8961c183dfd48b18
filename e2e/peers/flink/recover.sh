#!/bin/sh
# Kills both with SIGKILL in the middle of the drain, by turns, starts them again at once, and compares the time to their first
# output (ROUNDS, EVENTS). What is compared is in README.md.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
python3 "$here/recover.py"
