# shellcheck shell=bash
# say.sh: what a script tells a person. One line each, to stderr, so that stdout stays free for the
# output of a command that was squeezed.

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

warn() { printf '%s: warning: %s\n' "${0##*/}" "$*" >&2; }

# die MESSAGE...: the first line says what is wrong, the others what to do about it.
die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    shift
    [[ $# -eq 0 ]] || printf '    %s\n' "$@" >&2
    exit 1
}

# seconds_since USEC: "1.2", from a value of now_usec.
now_usec() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }

seconds_since() {
    local usec=$(($(now_usec) - $1))
    printf '%d.%d' $((usec / 1000000)) $((usec / 100000 % 10))
}

# bytes_of SIZE: "64M" as a number; fails on anything else.
bytes_of() {
    local number unit
    [[ $1 =~ ^([0-9]{1,15})([kKmMgGtT]?)([iI]?[bB])?$ ]] || return 1
    number=$((10#${BASH_REMATCH[1]})) unit=${BASH_REMATCH[2]}
    case $unit in
    '') ;;
    [kK]) number=$((number << 10)) ;;
    [mM]) number=$((number << 20)) ;;
    [gG]) number=$((number << 30)) ;;
    [tT]) number=$((number << 40)) ;;
    esac
    printf '%s' "$number"
}

# in_mib BYTES: "96.0 MiB".
in_mib() { printf '%d.%d MiB' $(($1 >> 20)) $(($1 % 1048576 * 10 >> 20)); }

# wait_until SECONDS COMMAND...: polls until the command succeeds; fails when it did not after the deadline,
# either. For what comes at once: a busy machine may take seconds for it.
wait_until() {
    local now deadline=$(($(now_usec) + $1 * 1000000))
    shift
    while now=$(now_usec) && ! "$@"; do
        ((now < deadline)) || return 1
        sleep 0.02
    done
}
