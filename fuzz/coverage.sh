#!/bin/sh
# Line coverage of the parsers by their fuzz targets: what fuzz/corpus and build-fuzz/found reach.
# Usage: fuzz/coverage.sh      Prints a line for each source file; fails when a file is below 90 %.
set -eu
cd "$(dirname "$0")/.."
build="build-coverage"
flags="'-fprofile-instr-generate','-fcoverage-mapping'"

# target: the files that it is to reach
parsers="handshake:src/vmm/handshake.c,src/vmm/layout.c
image_open:src/image/image.c,src/image/meta.c,src/image/header.c
sections:src/daemon/sections.c
state_adopt:src/pager/state.c
control_api:src/daemon/routes.c,src/daemon/api.c
trace_load:src/image/trace.c
source_elf:src/image/source_elf.c
layers_parse:src/store/layers.c"

[ -f $build/build.ninja ] || CC=clang meson setup $build -Dbuildtype=debug -Db_lundef=false \
	"-Dc_args=[$flags]" "-Dc_link_args=[$flags]" >/dev/null
version=$(clang --version | sed -n 's/.*version \([0-9]*\).*/\1/p')
failed=0
for line in $parsers; do
	target=${line%%:*}
	ninja -C $build "fuzz/fuzz-$target" >/dev/null
	folder="$build/inputs-$target"
	rm -rf "$folder"
	mkdir -p "$folder"
	for from in "fuzz/corpus/$target" "build-fuzz/found/$target"; do
		[ ! -d "$from" ] || find "$from" -type f -exec cp {} "$folder" \; 2>/dev/null || true
	done
	LLVM_PROFILE_FILE="$build/$target.raw" timeout 300 "$build/fuzz/fuzz-$target" "$folder" >/dev/null 2>&1
	"llvm-profdata-$version" merge -o "$build/$target.data" "$build/$target.raw"
	# shellcheck disable=SC2046 # a list of names is meant
	"llvm-cov-$version" export "$build/fuzz/fuzz-$target" -instr-profile="$build/$target.data" |
		fuzz/coverage.py $(echo "${line#*:}" | tr , ' ') || failed=1
done
exit $failed
