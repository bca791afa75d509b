#!/bin/bash
# farswapd's options: what is refused, and with which line; its sockets; its end.
set -u
: "${FARSWAPD:?the program to test}"
dir=$(mktemp -d)
export FARSWAP_RUNDIR=$dir
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null; done
    wait
    [ ! -e "$dir/alone.donor" ] || "$FARSWAPD" --destroy alone
    rm -rf "$dir"
}
trap cleanup EXIT

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

# refused PATTERN OPTION...: ends at once, not 0, with exactly one line that has the pattern.
refused() {
    local pattern=$1
    shift
    timeout 60 "$FARSWAPD" "$@" >"$dir/out" 2>"$dir/err"
    local status=$?
    [ $status -eq 1 ] || [ $status -eq 2 ] || fail "$*: status $status"
    grep -v -e "can't lock memory" -e 'more than this host has' "$dir/err" >"$dir/lines"
    [ "$(wc -l <"$dir/lines")" -eq 1 ] || fail "$*: not one line: $(cat "$dir/err")"
    grep -q -e "$pattern" "$dir/lines" || fail "$*: $(cat "$dir/err")"
    [ ! -s "$dir/out" ] || fail "$*: says something on stdout"
}

# start_by COMMAND...: it must become a farswapd. Sets pid and ready.
start_by() {
    "$@" >"$dir/ready" 2>"$dir/err" &
    pid=$!
    pids+=("$pid")
    IFS= read -r -t 60 ready <&3 || fail "$*: $(cat "$dir/err")"
}

start() {
    start_by "$FARSWAPD" "$@"
}

stop() {
    kill -"$1" "$pid"
    wait "$pid"
    local status=$?
    [ $status -eq 0 ] || fail "status $status after SIG$1: $(cat "$dir/err")"
}

# Open for both, so that neither end waits for the other.
mkfifo "$dir/ready"
exec 3<>"$dir/ready"
echo secret >"$dir/password"
: >"$dir/empty"

refused 'allowed are --listen ADDR:PORT --unix PATH' --nonsense
refused 'allowed are --listen' --memory
refused 'allowed are --listen' stray
for bad in nowhere 1.2.3.4:99999 1.2.3:1 ::1 '[::1' 127.0.0.1: '[127.0.0.1]:1' ''; do
    refused 'numeric ADDR:PORT' --listen "$bad"
done
for bad in 0 lots 1K 3M 100T -1; do
    refused 'from 4M to 64T' --memory "$bad"
done
for bad in 0 -1 1m 86401 ''; do
    refused '1 to 86400 seconds' --patience "$bad"
done
refused 'letters, digits' --name 'a b'
refused 'letters, digits' --name ''
refused '1 to 107 bytes' --unix "/$(printf 'x%.0s' {1..120})"
refused 'No such file' --requirepass-file "$dir/none"
refused 'first line must be a password' --requirepass-file "$dir/empty"
for public in 0.0.0.0:0 '[::]:0' 192.0.2.1:0 '[::ffff:127.0.0.1]:0'; do
    refused 'not loopback needs a password' --listen 127.0.0.1:0 --listen "$public"
done
refused 'a file that is not a socket' --unix "$dir/password"
refused 'folder is missing' --unix "$dir/none/s"

"$FARSWAPD" --help | grep -q -- '--requirepass-file FILE' || fail '--help'
"$FARSWAPD" --version | grep -q '^farswapd [0-9]' || fail '--version'

# A Unix socket alone: no TCP; mode 0600; the socket goes with the donor.
start --unix "$dir/s" --name alone
[ "$ready" = "farswapd alone ready on unix:$dir/s" ] || fail "$ready"
[ "$(stat -c %a "$dir/s")" = 600 ] || fail "mode $(stat -c %a "$dir/s")"
refused 'another server listens there' --unix "$dir/s"
[ "$(redis-cli -s "$dir/s" ping)" = PONG ] || fail 'the first donor lost its socket to the second'
stop TERM
[ ! -e "$dir/s" ] || fail 'the socket is left behind'
"$FARSWAPD" --destroy alone || fail 'what was kept can not be removed'
[ ! -e "$dir/alone.donor" ] || fail 'the name is left behind'
refused 'no donor named alone' --destroy alone
refused 'letters, digits' --destroy a/b
refused 'allowed is a size' --keep-available much

# kill -9 leaves it behind, and the next donor takes it.
start --unix "$dir/s"
{ kill -9 "$pid" && wait "$pid"; } 2>/dev/null
[ -S "$dir/s" ] || fail 'kill -9 should leave the socket'
start --unix "$dir/s"
[ "$(redis-cli -s "$dir/s" ping)" = PONG ] || fail 'the stale socket was not replaced'
stop INT

# More memory than there is: a warning, and on it goes.
start --unix "$dir/s" --memory 64T
grep -q -- '--memory 64 TiB is more than this host has available' "$dir/err" || fail 'no warning about memory'
stop TERM

# Several addresses; a public one with its password; a port that is taken.
start --listen 127.0.0.1:0 --listen '[::1]:0' --listen 0.0.0.0:0 --requirepass-file "$dir/password"
[[ $ready =~ ^farswapd\ donor\ ready\ on\ 127\.0\.0\.1:([0-9]+)\ \[::1\]:([0-9]+)\ 0\.0\.0\.0:([0-9]+)$ ]] ||
    fail "$ready"
for at in "127.0.0.1 ${BASH_REMATCH[1]}" "::1 ${BASH_REMATCH[2]}" "127.0.0.1 ${BASH_REMATCH[3]}"; do
    read -r host port <<<"$at"
    [ "$(redis-cli -h "$host" -p "$port" ping)" = 'NOAUTH Authentication required.' ] ||
        fail "no password needed at $at"
    [ "$(REDISCLI_AUTH=secret redis-cli -h "$host" -p "$port" ping)" = PONG ] || fail "ping at $at"
done
refused 'address already in use' --listen "127.0.0.1:${BASH_REMATCH[1]}"
grep -qa secret "/proc/$pid/cmdline" "/proc/$pid/environ" && fail 'the password shows'
stop TERM

# With a right to lock less than --memory (to use it would make later allocations fail) or nothing:
# one warning that says what it risks, and on it goes.
may_lock_little() {
    ulimit -l 65536 2>/dev/null || ulimit -l 64
    exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock --ambient-caps=-ipc_lock \
        "$FARSWAPD" --listen 127.0.0.1:0
}
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
    start_by may_lock_little
    [ "$(grep -c "can't lock memory.*swap the values out" "$dir/err")" -eq 1 ] ||
        fail "no warning about locking: $(cat "$dir/err")"
    redis-cli -p "${ready##*:}" set k "$(head -c 60000 /dev/zero | tr '\0' x)" | grep -q OK ||
        fail 'a SET without locked memory'
    stop TERM
    # And with the right, it is used.
    start --listen 127.0.0.1:0
    # (ASan makes mlockall do nothing.)
    grep -q "can't lock" "$dir/err" || grep -qa __asan_init "$FARSWAPD" ||
        awk '/VmLck/ { exit $2 > 0 ? 0 : 1 }' "/proc/$pid/status" || fail 'memory is not locked'
    stop TERM
fi
echo ok
