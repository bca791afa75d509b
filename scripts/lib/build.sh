# shellcheck shell=bash
# build.sh: the programs that a run needs, and no tests (they would need test packages).

BUILD=${FARSWAP_BUILD:-$ROOT/build}
PLUGIN=$BUILD/nbdkit-plugin/nbdkit-farswap-plugin.so
FUSE=$BUILD/client/fuse/farswap-fuse
# shellcheck disable=SC2034 # for nbd.sh
ATTACH=$BUILD/client/attach/farswap-attach
NBD=$BUILD/client/nbd/farswap-nbd
FARSWAPD=$BUILD/server/farswapd
FARSWAP=$BUILD/client/cli/farswap
HOARD=$BUILD/tests/swap/hoard

# build_programs: up to date after it, or dies. Built as the owner of the source tree, so that a
# run through sudo leaves nothing of root's in it.
build_programs() {
    local as=() owner
    owner=$(stat -c %u "$ROOT")
    ((owner == 0)) || [[ -n ${FARSWAP_BUILD:-} ]] ||
        as=(setpriv "--reuid=$owner" "--regid=$(stat -c %g "$ROOT")" --clear-groups)
    if [[ ! -f $BUILD/build.ninja ]]; then
        say "building in $BUILD"
        attended "${as[@]}" meson setup -Dtests=false "$BUILD" "$ROOT" >&2 ||
            die "meson setup failed; its log is $BUILD/meson-logs/meson-log.txt"
    fi
    attended "${as[@]}" ninja --quiet -C "$BUILD" "${PLUGIN#"$BUILD/"}" "${FUSE#"$BUILD/"}" "${ATTACH#"$BUILD/"}" "${NBD#"$BUILD/"}" "${FARSWAPD#"$BUILD/"}" \
        "${FARSWAP#"$BUILD/"}" "${HOARD#"$BUILD/"}" >"$STATE/build.log" ||
        die 'the build failed:' "$(tail -n 40 "$STATE/build.log")"
}
