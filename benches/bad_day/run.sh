#!/bin/sh
# All proxies on all days, 30 s each (about 40 minutes), and the tables in docs/. Arguments are passed on:
# benches/bad_day/run.sh --seconds 5 --balance least_requests,peak_ewma
set -eu
cd "$(dirname "$0")/../.."
exec cargo bench --locked --bench bad_day -- --docs latest "$@"
