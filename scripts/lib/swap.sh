# shellcheck shell=bash
# swap.sh: swapon and swapoff, and what must be true around them.

# swap_is_on DEVICE
swap_is_on() {
    local device
    while read -r device _; do
        [[ $device == "$1" ]] && return 0
    done </proc/swaps
    return 1
}

# swap_used DEVICE: bytes swapped out to it.
swap_used() {
    local device used
    while read -r device _ _ used _; do
        [[ $device != "$1" ]] || printf '%s' $((used << 10))
    done </proc/swaps
}

# swap_priority: one above the highest on the host, so that the kernel takes this device first.
swap_priority() {
    local priority highest=-1
    while read -r _ _ _ _ priority; do
        [[ $priority =~ ^-?[0-9]+$ ]] && ((priority > highest)) && highest=$priority
    done </proc/swaps
    if ((highest >= 32767)); then
        warn 'another swap has the highest priority there is: pages will go to both'
        highest=32766
    fi
    printf '%s' $((highest + 1))
}

# swap_on DEVICE
swap_on() {
    local output
    output=$(mkswap "$1" 2>&1 && swapon --discard --priority "$(swap_priority)" "$1" 2>&1) ||
        die "swapon $1 failed" "$output" \
            'in a container: swapon works only in the initial user namespace'
}

# swap_off DEVICE: fails, having said why, if it can't be turned off now; it stays on then.
swap_off() {
    local used available missing output
    swap_is_on "$1" || return 0
    used=$(swap_used "$1")
    available=$(meminfo MemAvailable)
    missing=$((used - available - $(swap_free_elsewhere "$1")))
    if ((missing > 0)); then
        warn "swapoff would need $(in_mib "$missing") more RAM than there is"
    elif output=$(swapoff "$1" 2>&1); then
        say "swap off: $1"
        return 0
    else
        used=$(swap_used "$1") available=$(meminfo MemAvailable)
        missing=$((used > available ? used - available : 0))
        warn "swapoff failed: ${output:-it was killed}"
    fi
    warn "$(in_mib "${used:-0}") are swapped out, $(in_mib "$available") of RAM are available:" \
        "$(in_mib "$missing") missing (a memory limit of the processes that own the pages counts, too)"
    warn "everything stays up: free that RAM, then: $SCRIPTS/run --stop"
    return 1
}

# swap_free_elsewhere DEVICE: bytes free on the host's other swaps.
swap_free_elsewhere() {
    local device size used free=0
    while read -r device _ size used _; do
        [[ $device == "$1" || ! $size =~ ^[0-9]+$ ]] || free=$((free + ((size - used) << 10)))
    done </proc/swaps
    printf '%s' "$free"
}

# meminfo FIELD: in bytes.
meminfo() {
    local name kib
    while read -r name kib _; do
        [[ $name != "$1:" ]] || printf '%s' $((kib << 10))
    done </proc/meminfo
}

# warn_about_host: what in the host's settings spoils swapping to us.
warn_about_host() {
    local value
    if { read -r value </sys/module/zswap/parameters/enabled; } 2>/dev/null && [[ $value == Y ]]; then
        warn 'zswap is enabled and sits in front of this device: pages are compressed twice, and many' \
            'never reach it. Off: echo N >/sys/module/zswap/parameters/enabled'
    fi
    if { read -r value </proc/sys/vm/swappiness; } 2>/dev/null && ((value == 0)); then
        warn 'vm.swappiness is 0: the kernel swaps only when it must'
    fi
}
