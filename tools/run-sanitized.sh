#!/bin/sh
# Builds with sanitizers and runs all tests: run-sanitized.sh asan|tsan
set -eu
case ${1:-} in
asan) sanitize=address,undefined ;;
tsan) sanitize=thread ;;
*) echo "usage: run-sanitized.sh asan|tsan" >&2; exit 2 ;;
esac
build=build-$1
[ -f "$build/build.ninja" ] || meson setup "$build" -Db_sanitize=$sanitize -Dbuildtype=debugoptimized -Db_lundef=false
ninja -C "$build"
export ASAN_OPTIONS=detect_stack_use_after_return=1:abort_on_error=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
exec tools/run-tests.sh "$build" --timeout-multiplier 5
