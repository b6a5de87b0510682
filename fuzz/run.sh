#!/bin/sh
# Lets libFuzzer search each target for FUZZ_SECONDS (default 60), or those named: fuzz/run.sh [TARGET]...
# New inputs stay in build-fuzz/found/TARGET, a crash as build-fuzz/crash-TARGET-*; copy what is worth keeping into
# fuzz/corpus/TARGET, where it becomes a test.
set -eu
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
build="build-fuzz"
sanitize=address,undefined

[ -f $build/build.ninja ] || CC=clang meson setup $build -Dbuildtype=debugoptimized -Db_lundef=false \
	"-Dc_args=['-fsanitize=fuzzer-no-link','-fsanitize=$sanitize','-fno-sanitize-recover=undefined']" \
	"-Dc_link_args=['-fsanitize=$sanitize']"
ninja -C $build fuzzers

failed=0
for program in "$build"/fuzz/fuzz-*; do
	target=${program##*/fuzz-}
	case $target in
	*.p) continue ;;
	esac
	[ $# -eq 0 ] || case " $* " in
	*" $target "*) ;;
	*) continue ;;
	esac
	mkdir -p "$build/found/$target" "fuzz/corpus/$target"
	[ "$target" != image_open ] || fuzz/image_corpus.py tests/golden/*.img "$build/found/$target"
	echo "== $target, $seconds s"
	status=0
	dictionary=fuzz/$target.dict
	[ -f "$dictionary" ] || dictionary=
	"$program" ${dictionary:+"-dict=$dictionary"} -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=32768 -print_final_stats=1 \
		-artifact_prefix="$build/crash-$target-" "$build/found/$target" "fuzz/corpus/$target" \
		>"$build/$target.log" 2>&1 || status=$?
	grep -E 'stat::number_of_executed_units|^SUMMARY|Test unit written' "$build/$target.log" || true
	if [ $status -ne 0 ]; then
		tail -40 "$build/$target.log" >&2
		failed=1
	fi
done
exit $failed
