# shellcheck shell=bash
# state.sh: what a run has made, written down before it is made, so that whoever comes next can take
# it away again: the same run at its end, or the next call after a kill -9.
#
#   $STATE/lock       flock()ed by the run that is at work; its children do not inherit it
#   $STATE/owner      that run's process
#   $STATE/NAME.pid   a server's process: pid and start time, so that a recycled pid is never taken
#                     for it. Written by the process itself before it becomes the server.
#   $STATE/NAME.log   what it printed
#   $STATE/image, nbd, swap, cgroup, kept    one word each: see device.sh, cgroup.sh, run
#
# Nothing is removed from here before what it names is gone.

STATE=$(realpath --canonicalize-missing "${FARSWAP_RUN_STATE:-/run/farswap-run}")
LOCK=

state_note() { printf '%s\n' "$2" >"$STATE/$1"; } # WORD VALUE

# state_word WORD: prints its value; fails if there is none.
state_word() {
    local value
    [[ -f $STATE/$1 ]] && read -r value <"$STATE/$1" && printf '%s\n' "$value"
}

state_forget() { rm -f "$STATE/$1"; }

# state_lock: this run is the one at work, until it ends; fails if another is.
state_lock() {
    (umask 077 && mkdir -p "$STATE") || die "cannot write in ${STATE%/*}"
    exec {LOCK}>>"$STATE/lock"
    flock -n "$LOCK" || return 1
    process_note owner $$
}

# state_wait_lock SECONDS
state_wait_lock() {
    exec {LOCK}>>"$STATE/lock"
    flock -w "$1" "$LOCK"
}

# state_is_empty: did the last run leave nothing behind?
state_is_empty() {
    local file
    for file in "$STATE"/*; do
        case ${file##*/} in
        lock | owner | *.log | mnt | '*') ;;
        *) return 1 ;;
        esac
    done
}

# state_clear: after everything it names is gone. The lock stays: who waits for it must not wait for
# another file than who comes next.
state_clear() {
    local file
    for file in "$STATE"/*; do
        case ${file##*/} in
        lock) ;;
        mnt) rmdir "$file" ;; # never -r: it may still be a mount point
        *) rm -f "$file" ;;
        esac
    done
}

# process_started PID: when, in ticks since boot; fails if there is no such process.
process_started() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    stat=${stat##*) }
    # shellcheck disable=SC2086 # the fields are numbers; the 22nd of them all is the 20th here
    set -- $stat
    [[ $1 != [ZX] ]] && printf '%s' "${20}"
}

process_note() { printf '%s %s\n' "$2" "$(process_started "$2")" >"$STATE/$1"; } # FILE PID

# process_of FILE: prints the pid in it, if that process still runs.
process_of() {
    local pid started
    [[ -f $STATE/$1 ]] && read -r pid started <"$STATE/$1" &&
        [[ -n $started && $(process_started "$pid") == "$started" ]] && printf '%s' "$pid"
}

process_is_gone() { ! process_of "$1" >/dev/null; }

# spawn NAME COMMAND...: starts a server that outlives this script, in a session of its own, so that
# Ctrl-C at the terminal does not reach it before swapoff has run.
spawn() {
    local name=$1
    shift
    : >"$STATE/$name.log"
    (
        exec </dev/null >"$STATE/$name.log" 2>&1 {LOCK}>&-
        cd /
        process_note "$name.pid" "$BASHPID"
        exec env --default-signal=INT,QUIT,HUP,TERM setsid "$@"
    ) &
    disown
    wait_until 60 test -s "$STATE/$name.pid"
}

# stop NAME: SIGTERM, and SIGKILL if that is not enough; returns when the process is gone.
stop() {
    local pid
    if pid=$(process_of "$1.pid"); then
        kill -TERM "$pid" 2>/dev/null
        if ! wait_until 30 process_is_gone "$1.pid"; then
            kill -KILL "$pid" 2>/dev/null
            wait_until 30 process_is_gone "$1.pid"
        fi
        say "$1 stopped"
    fi
    state_forget "$1.pid"
}

# log_of NAME: its last lines, for an error message.
log_of() { tail -n 5 "$STATE/$1.log" 2>/dev/null; }
