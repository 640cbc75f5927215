#!/bin/sh
# Measures all proxies in all scenarios, 30 s each (about 40 minutes), and writes tables and plot to docs/.
# Arguments are passed to the benchmark:
# benches/bad_day/run.sh --seconds 5 --balance least_requests,peak_ewma
set -eu
cd "$(dirname "$0")/../.."
exec cargo bench --locked --bench bad_day -- --docs latest "$@"
