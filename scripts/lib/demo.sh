# shellcheck shell=bash
# demo.sh: a program several times larger than its RAM and than the device's pool, then one that is
# not ours, and the proof that both lived on the device.
#
# Everything follows from --memory: the hoard is 8 times as large and gets a quarter of its size as
# RAM. Three quarters of it are swapped out; at the 2.5 times that lz4 makes of its contents that is
# more than twice what the pool holds, so pages overflow.

HOARD_TIMES=8
SQUEEZE_PART=4

demo_check() {
    HOARD_BYTES=$((HOARD_TIMES * MEMORY_BYTES))
    LIMIT_BYTES=$((HOARD_BYTES / SQUEEZE_PART))
    ((SIZE_BYTES >= HOARD_BYTES)) || die "for the demonstration --size must be at least $HOARD_TIMES" \
        "times --memory: $(in_mib $HOARD_BYTES)" 'or give a command of yours: scripts/run ... -- COMMAND'
}

demonstrate() {
    declare -A first peak last hoard
    local failures=()
    counters first
    squeeze_make "$LIMIT_BYTES"
    say "a program of $(in_mib "$HOARD_BYTES") with $(in_mib "$LIMIT_BYTES") of RAM:"
    demo_hoard
    demo_other_program
    counters last
    demo_judge
    demo_table
    ((${#failures[@]} == 0)) || die 'THE DEMONSTRATION FAILED' "${failures[@]}"
    say 'every page came back right'
}

# counters ARRAY: the device's own.
counters() { read_table "$1" < <("$FARSWAP" stats "$IMAGE"); }

# read_table ARRAY: lines "name value" from stdin.
read_table() {
    local -n table=$1
    local name value
    while read -r name value _; do
        # shellcheck disable=SC2034,SC2004 # an associative array, by reference
        [[ ! $value =~ ^[0-9]+$ ]] || table[$name]=$value
    done
}

# Counters are taken while it still holds its memory: it waits at a FIFO for that, once all is verified.
demo_hoard() {
    local status=0 hold=$STATE/hold report=$STATE/hoard.report
    mkfifo "$hold"
    # shellcheck disable=SC2016
    spawn sampler "$BASH" -c 'exec 3>"$0" && exec "$1" stats "$2"' "$hold" "$FARSWAP" "$IMAGE"
    # shellcheck disable=SC2153
    squeeze "$HOARD" --size "$HOARD_BYTES" --report "$report" --hold "$hold" || status=$?
    ((status == 0)) || failures+=("the program ended with status $status (1: wrong pages, 137: killed)")
    read_table peak <"$STATE/sampler.log"
    state_forget sampler.pid
    [[ ! -f $report ]] || read_table hoard <"$report"
}

demo_other_program() {
    local alone squeezed records=$((LIMIT_BYTES * 5 / 4 / 2048)) # a quarter more than it gets
    say "python3 sorts $records records of 2 KiB, alone and with $(in_mib "$LIMIT_BYTES") of RAM:"
    alone=$(python3 "$ROOT/tests/swap/sort_records.py" "$records")
    demo_sort_squeezed "$records" >"$STATE/squeezed.digest"
    squeezed=$(<"$STATE/squeezed.digest")
    if [[ -n $alone && $alone == "$squeezed" ]]; then
        say "  the same result: sha256 ${alone:0:16}..."
    else
        failures+=("python3 sorted wrongly: ${squeezed:-nothing} instead of ${alone:-nothing}")
    fi
}

# Linux 6.18 sometimes (2 of 8 times on stock nbdkit memory as well, more on a loaded machine) kills
# a program in a tight cgroup although swap is free. That is not the device's doing: so again.
demo_sort_squeezed() {
    local kills
    for _ in 1 2 3 4 5; do
        kills=$(squeeze_oom_kills)
        squeeze python3 "$ROOT/tests/swap/sort_records.py" "$1" && return
        (($(squeeze_oom_kills) > kills)) || return
        say '  the kernel killed it for want of memory although swap is free; again'
    done
}

demo_judge() {
    local name bytes
    for name in write_bytes read_bytes; do
        bytes=$((last[$name] - first[$name]))
        ((bytes >= 2 * LIMIT_BYTES)) || failures+=(
            "the device counted $(in_mib "$bytes") of $name, less than twice $(in_mib "$LIMIT_BYTES")")
    done
    for name in overflow_pages fetch_pages; do
        [[ $OVERFLOW == none ]] || ((last[$name] > first[$name])) || failures+=("no $name were counted")
    done
    for name in failed_reads corrupt_pages store_lost_pages; do
        ((last[$name] == 0)) || failures+=("the device counted ${last[$name]} $name")
    done
}

demo_row() { printf '  %-34s %s\n' "$1" "$2"; }

demo_table() {
    local local_pages=$((peak[pages_pool] + peak[same_pages]))
    local compressed=$((peak[compr_data_size] + peak[store_data_size]))
    printf '\n'
    demo_row 'pages swapped out at the end' "${peak[pages_stored]} ($(in_mib "${peak[orig_data_size]}"))"
    demo_row '  of them local' "$local_pages (${peak[same_pages]} of them same-filled)"
    demo_row '  of them remote' "${peak[pages_store]}"
    demo_row 'pages overflowed, fetched' "${last[overflow_pages]}, ${last[fetch_pages]}"
    demo_row 'written to, read from the device' \
        "$(in_mib "${last[write_bytes]}"), $(in_mib "${last[read_bytes]}")"
    demo_row 'compression ratio' "$(ratio "${peak[orig_data_size]}" "$compressed")"
    demo_row 'RAM that the device costs' \
        "$(in_mib $((peak[mem_used_total] + peak[mem_reserve]))), and $(in_mib "$(server_bytes)") for its server"
    demo_row 'swap-out, swap-in' \
        "${hoard[swap_out_mib_per_second]:-?} MiB/s, ${hoard[swap_in_mib_per_second]:-?} MiB/s"
    demo_row 'fault: p50, p99, p99.9, longest' "${hoard[fault_p50_us]:-?}, ${hoard[fault_p99_us]:-?},\
 ${hoard[fault_p999_us]:-?}, ${hoard[fault_max_us]:-?} microseconds (${hoard[faults]:-?} faults)"
    printf '\n'
}

# ratio A B: A/B with two digits.
ratio() {
    (($2 > 0)) || { printf '?' && return; }
    printf '%d.%02d' $(($1 / $2)) $(($1 * 100 / $2 % 100))
}

# What the server keeps resident besides the image, with its supervisor and its spare.
server_bytes() {
    local pid pids name kib bytes=0
    pid=$(process_of server.pid) || { printf 0 && return; }
    read -r -a pids <"/proc/$pid/task/$pid/children"
    for pid in "$pid" "${pids[@]}"; do
        while read -r name kib _; do
            [[ $name != RssAnon: ]] || bytes=$((bytes + (kib << 10)))
        done <"/proc/$pid/status"
    done
    printf '%s' "$bytes"
}
