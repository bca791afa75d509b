#!/bin/bash
# redis's own tools work against farswapd: redis-cli (also interactive, which asks for COMMAND DOCS),
# its --scan and --latency, and redis-benchmark with values of a segment's size.
set -u
: "${FARSWAPD:?the program to test}"
for tool in redis-cli redis-benchmark; do
    command -v $tool >/dev/null || { echo "SKIP: no $tool (apt-get install redis-tools)"; exit 77; }
done
dir=$(mktemp -d)
pid=
cleanup() {
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null
    wait
    rm -rf "$dir"
}
trap cleanup EXIT

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

mkfifo "$dir/ready"
exec 3<>"$dir/ready" # for both, so that neither end waits for the other
"$FARSWAPD" --listen 127.0.0.1:0 --unix "$dir/s" --memory 256M >"$dir/ready" &
pid=$!
IFS= read -r -t 60 ready <&3 || fail 'not ready'
port=${ready%% unix:*}
port=${port##*:}

# answers EXPECTED WORD...: redis-cli over TCP and over the Unix socket.
answers() {
    local expected=$1
    shift
    [ "$(redis-cli -p "$port" "$@")" = "$expected" ] || fail "$*: $(redis-cli -p "$port" "$@")"
}

answers PONG ping
answers OK set a hello
answers hello get a
answers ell getrange a 1 3
answers 1 exists a
answers 1 dbsize
answers $'0\na' scan 0
answers 1 unlink a
answers 0 del a
answers OK select 0
redis-cli -p "$port" config get maxmemory-policy | grep -qx noeviction || fail 'config get'
redis-cli -p "$port" info memory | grep -q '^maxmemory_policy:noeviction' || fail 'info memory'
# There are no replicas to wait for: at once, also behind a SET and before more.
[ "$(printf 'set w v\nwait 1 600000\nget w\n' | timeout 60 redis-cli -s "$dir/s")" = $'OK\n0\nv' ] || fail 'wait'
[ "$(printf 'set i j\nget i\n' | redis-cli -s "$dir/s")" = $'OK\nj' ] || fail 'redis-cli reading stdin'
printf 'set x%s y\n' {1..500} | redis-cli -p "$port" >/dev/null
[ "$(redis-cli -p "$port" --scan --pattern 'x*' | sort -u | wc -l)" -eq 500 ] || fail 'redis-cli --scan'
head -c 65520 /dev/urandom >"$dir/segment"
redis-cli -p "$port" -x set segment <"$dir/segment" | grep -q OK || fail 'redis-cli -x'
redis-cli -p "$port" get segment | head -c 65520 | cmp - "$dir/segment" || fail 'a segment came back changed'

# bench OPTION...: says a rate, and no error nor warning.
bench() {
    redis-benchmark -p "$port" -q "$@" >"$dir/bench" 2>&1 || fail "redis-benchmark $*: $(cat "$dir/bench")"
    tr '\r' '\n' <"$dir/bench" | grep 'requests per second' || fail "redis-benchmark $*: no rate"
    ! grep -qiE 'error|warn' "$dir/bench" || fail "redis-benchmark $*: $(cat "$dir/bench")"
}
bench -t ping,set,get -n 20000 -P 16
bench -t set,get -d 65520 -P 16 -n 5000
bench -t set -d 65520 -r 500 -n 5000
bench -n 5000 -P 16 getrange key:__rand_int__ 100 4195

kill -TERM "$pid"
wait "$pid" || fail "status $? at the end"
pid=
echo ok
