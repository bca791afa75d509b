# shellcheck shell=bash
# tests.sh: builds of the tests, and what came of them.
#
# meson leaves a line of JSON a test in testlog.json; tally.py adds them up. Builds that failed are
# counted there, too: a test that can't be built has not passed.

RAN=()
BROKEN=()

# build_tests NAME SUITE OPTIONS...: in $BUILDS/NAME, what the tests of that suite need; '' for all.
build_tests() {
    local name=$1 build=$BUILDS/$1 suite=$2 options=("${@:3}") needed=''
    say "building $name"
    rm -f "$build/meson-logs/testlog.json"
    if [[ -f $build/build.ninja ]]; then
        attended meson configure -Dtests=true "${options[@]}" "$build" >/dev/null
    else
        attended meson setup -Dtests=true "${options[@]}" "$build" "$ROOT" >/dev/null
    fi && attended ninja --quiet -C "$build" build.ninja >/dev/null &&
        { [[ -z $suite ]] || needed=$(python3 "$SCRIPTS/lib/needed.py" "$build" "$suite"); } &&
        # shellcheck disable=SC2086 # words
        attended ninja --quiet -C "$build" $needed && return
    warn "$name could not be built: $build/meson-logs/meson-log.txt"
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
