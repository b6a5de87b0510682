#!/bin/sh
# Line coverage of what reads bytes of others: by the inputs in fuzz/corpus, tests/golden and build-fuzz/found, and, as
# fuzz/coverage.sh tests, by all tests, which takes some minutes.  Whole files count, also those parts that write.
# Prints a line for each; fails when one is below 90 %.
set -eu
cd "$(dirname "$0")/.."
build="$PWD/build-coverage"

# What harnesses are for: images, traces, cores; handshakes; requests; the texts of layers and configuration; what engines leave to
# each other and say to their keeper.
fuzzed="src/image/header.c src/image/meta.c src/image/text.c src/image/image.c src/image/parent.c src/image/read.c src/image/verify.c
	src/image/trace.c src/image/source_elf.c src/codec/codec.c src/codec/mask.c src/codec/canned.c
	src/vmm/handshake.c src/vmm/layout.c src/vmm/fit.c src/daemon/api.c src/daemon/routes.c src/daemon/config.c
	src/store/layers.c src/pager/state.c src/pager/adopt.c src/daemon/handover_sections.c src/daemon/guest_note.c src/daemon/wire.c
	src/daemon/gone.c src/daemon/keep_record.c"

# What also does: folders of images, descriptors, decoders that are short beside their encoders; both ends of the client's wires;
# records that keepers leave, and the keeper's and the engine's ears.
tested="src/image/dir.c src/image/source_raw.c src/vmm/descriptors.c src/codec/lz4.c src/codec/zstd.c src/codec/deflate.c
	src/codec/params.c src/base/size.c src/client/api.c src/client/handshake.c src/client/preload_config.c src/daemon/sections.c
	src/daemon/ledger.c src/daemon/keep_names.c src/daemon/keeper_engine.c src/daemon/keeper_link.c src/daemon/guest_link.c
	src/daemon/guest_conn.c src/os/sock.c"

# Counters lie in a shared mapping, so that processes count that are killed or become others; who looks at its own environment fails.
flags="'-fprofile-instr-generate=$build/profiles/%8m%c.raw'"
[ -f "$build/build.ninja" ] || CC=clang meson setup "$build" -Dbuildtype=debug -Db_lundef=false \
	"-Dc_args=[$flags,'-fcoverage-mapping','-mllvm','-runtime-counter-relocation']" "-Dc_link_args=[$flags]" >/dev/null
version=$(clang --version | sed -n 's/.*version \([0-9]*\).*/\1/p')

# report OBJECTS PROFILES FILES
# shellcheck disable=SC2086 # lists of names are meant
report() {
	"llvm-profdata-$version" merge -o "$build/data" $2
	"llvm-cov-$version" export $1 -instr-profile="$build/data" | fuzz/coverage.py $3
}

failed=0
ninja -C "$build" fuzzers >/dev/null
rm -rf "$build/inputs" "$build"/fuzz-*.raw
mkdir -p "$build/inputs"
fuzz/image_corpus.py tests/golden/*.img "$build/inputs"
objects=
for program in "$build"/fuzz/fuzz-*; do
	target=${program##*/fuzz-}
	[ -f "$program" ] || continue
	[ "$target" = image_open ] && golden="$build/inputs" || golden=
	LLVM_PROFILE_FILE="$build/fuzz-$target.raw" timeout 300 "$program" "fuzz/corpus/$target" "build-fuzz/found/$target" \
		${golden:+"$golden"} >/dev/null 2>&1
	objects="$objects ${objects:+-object} $program"
done
echo "By fuzzing:"
report "$objects" "$build/fuzz-*.raw" "$fuzzed" || failed=1

if [ "${1:-}" = tests ]; then
	ninja -C "$build" >/dev/null
	rm -rf "$build/profiles"
	meson test -C "$build" --no-rebuild >"$build/tests.log" 2>&1 || grep -E ' (FAIL|TIMEOUT) ' "$build/tests.log" || true
	for program in "$build"/tests/unit/test-* "$build"/tests/golden/golden "$build"/cistern "$build"/cisternd \
		"$build"/cisternd-points "$build"/src/client/libcistern*.so; do
		[ ! -f "$program" ] || objects="$objects -object $program"
	done
	echo "By all tests:"
	report "$objects" "$build/profiles/*.raw $build/fuzz-*.raw" "$fuzzed $tested" || failed=1
fi
exit $failed
