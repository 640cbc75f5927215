#!/usr/bin/env bash
# Builds l7lb with profile-guided optimization: build with counters, run the training load, build with the profile.
# The result is target/pgo/l7lb. Needs llvm-profdata: `rustup component add llvm-tools`, or Debian's llvm-19.
# Without it, `cargo build --release` is the right build.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
profdata=""
for candidate in "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" \
    /usr/lib/llvm-{22,21,20,19}/bin/llvm-profdata llvm-profdata; do
    if command -v "$candidate" > /dev/null; then profdata=$candidate && break; fi
done
[ -n "$profdata" ] || { echo "llvm-profdata not found; run: rustup component add llvm-tools" >&2; exit 1; }

work=$PWD/target/pgo
profiles=$work/profiles
rm -rf "$profiles" && mkdir -p "$profiles"

echo "== build with counters"
# --target keeps the flags away from build scripts, whose profiles are not wanted.
RUSTFLAGS="-Cprofile-generate=$profiles" cargo build --release --locked --bin l7lb --target "$host" --target-dir "$work/generate"
echo "== training load"
cargo bench --locked --bench cost -- --train "$work/generate/$host/release/l7lb"
"$profdata" merge -o "$work/l7lb.profdata" "$profiles"/*.profraw
echo "== build with the profile"
RUSTFLAGS="-Cprofile-use=$work/l7lb.profdata" cargo build --release --locked --bin l7lb --target "$host" --target-dir "$work/use"
cp "$work/use/$host/release/l7lb" "$work/l7lb"
echo "built $work/l7lb"
