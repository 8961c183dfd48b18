#!/bin/sh
# Runs the page's test in headless Chromium: `CACHE=... sh e2e/page/run.sh [arguments of page-test.mjs]`.
# What it needs is installed under $CACHE, except Chromium itself.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
modules="${CACHE:?}/page-test"

for tool in node npm; do
  command -v "$tool" >/dev/null || { echo "error: $tool is not installed; Node.js 20 or newer with npm is needed" >&2; exit 1; }
done
browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }
if [ -z "${CHROMIUM:=$(browser || true)}" ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: no Chromium; install the package \`chromium\`, or name a browser in CHROMIUM" >&2
    exit 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium fonts-liberation >/dev/null
  CHROMIUM=$(browser)
fi
export CHROMIUM

mkdir -p "$modules"
if ! cmp -s "$here/package-lock.json" "$modules/installed.json"; then
  cp "$here/package.json" "$here/package-lock.json" "$modules/"
  (cd "$modules" && npm ci --loglevel=error --no-audit --no-fund --ignore-scripts)
  cp "$here/package-lock.json" "$modules/installed.json"
fi
MODULES="$modules" exec node --test-reporter=spec "$here/page-test.mjs" "$@"
