# shellcheck shell=bash
# attended.sh: commands in the foreground that a signal to this script ends, too.
#
# bash runs a trap only after the command it waits for has ended, so a TERM would wait for the whole
# demonstration. It runs it at once while in `wait`: so commands run beside the script, with its
# stdin, and with SIGINT as it was (bash lets background commands ignore it).

CHILD=

attended() {
    local status=0
    if [[ -n $LOCK ]]; then
        env --default-signal=INT,QUIT "$@" <&0 {LOCK}>&- &
    else
        env --default-signal=INT,QUIT "$@" <&0 &
    fi
    CHILD=$!
    wait "$CHILD" || status=$?
    CHILD=
    return "$status"
}

# attended_end: ends the command that a signal found running.
attended_end() {
    [[ -n $CHILD ]] || return 0
    kill -TERM "$CHILD" 2>/dev/null
    wait_until 30 child_is_gone || kill -KILL "$CHILD" 2>/dev/null
    CHILD=
}

child_is_gone() { ! process_started "$CHILD" >/dev/null; }

# on_signals FUNCTION: it is called with a signal's name and number.
on_signals() {
    local pair
    for pair in HUP:1 INT:2 TERM:15; do
        # shellcheck disable=SC2064 # expanded now, on purpose
        trap "$1 ${pair%:*} ${pair#*:}" "${pair%:*}"
    done
}
