# shellcheck shell=bash
# tests.sh: builds of the tests, and what came of them.
#
# meson leaves a line of JSON a test in testlog.json; tally.py adds them up. Builds that failed are
# counted there, too: a test that can't be built has not passed.

RAN=()
BROKEN=()

# build_tests NAME OPTIONS...: in $BUILDS/NAME.
build_tests() {
    local name=$1 options=("${@:2}")
    say "building $name"
    rm -f "$BUILDS/$name/meson-logs/testlog.json"
    if [[ -f $BUILDS/$name/build.ninja ]]; then
        attended meson configure -Dtests=true "${options[@]}" "$BUILDS/$name" >/dev/null
    else
        attended meson setup -Dtests=true "${options[@]}" "$BUILDS/$name" "$ROOT" >/dev/null
    fi && attended ninja --quiet -C "$BUILDS/$name" && return
    warn "$name could not be built: $BUILDS/$name/meson-logs/meson-log.txt"
    BROKEN+=("$name")
    return 1
}

# run_tests NAME ARGUMENTS-OF-MESON-TEST...
run_tests() {
    local log
    say "testing $1"
    RAN+=("$1")
    log=$BUILDS/$1/meson-logs/test-output.txt
    # Most of them wait for something most of the time: twice as many at once as there are CPUs.
    attended env UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 \
        meson test -C "$BUILDS/$1" --no-rebuild --print-errorlogs \
        --num-processes $((2 * $(nproc))) --timeout-multiplier 3 "${@:2}" >"$log" 2>&1 ||
        [[ $1 == build-lossy ]] || grep -vE '^ *[0-9]+/[0-9]+ .* (OK|SKIP) ' "$log"
}

# tally: prints what failed and what was skipped, with the reasons; the last line is the sum. Its
# status is that of the whole run.
tally() {
    local name arguments=()
    for name in "${BROKEN[@]}"; do arguments+=(--broken "$name"); done
    for name in "${RAN[@]}"; do
        if [[ $name == build-lossy ]]; then
            arguments+=(--must-fail "$BUILDS/$name")
        else
            arguments+=("$BUILDS/$name")
        fi
    done
    python3 "$SCRIPTS/lib/tally.py" --may-skip "$ROOT/tests/may-skip" "${arguments[@]}"
}
