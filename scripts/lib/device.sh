# shellcheck shell=bash
# device.sh: the server, and what makes a block device of it.
#
#   nbd     the kernel's client: nbdkit ── /dev/nbdN
#   fuse    where there is none: fuse.sh
#
# Going down is the other way round, and begins with swapoff: a server that stops under an active
# swap takes every page on it along.

IMAGE=farswap-run

# shellcheck disable=SC2034 # for the run
declare -A DOOR_TEXT=(
    [nbd]="the kernel's nbd, with nbd-client"
    [fuse]='FUSE and a loop device (this kernel has no nbd)')

# door_choose: prints nbd or fuse, whichever works here.
door_choose() {
    if [[ -b /dev/nbd0 ]] || { modprobe nbd && wait_until 5 test -b /dev/nbd0; } 2>/dev/null; then
        echo nbd
    else
        echo fuse
    fi
}

# device_up DOOR SIZE MEMORY CODEC OVERFLOW: sets $DEVICE.
device_up() {
    "up_$1" "${@:2}"
}

up_nbd() {
    server_start "$@"
    attach_nbd
}

server_start() {
    local overflow=()
    [[ $4 == none ]] || overflow=("overflow=$4")
    state_note image "$IMAGE"
    # As a daemon: in the foreground nbdkit 1.32 asks the kernel for SIGTERM when its parent dies,
    # and this script may be killed.
    spawn server nbdkit --unix "$STATE/server.sock" --pidfile "$STATE/server.ready" \
        "$PLUGIN" "name=$IMAGE" "size=$1" "memory=$2" "codec=$3" "${overflow[@]}"
    wait_until 15 server_is_decided
    if ! server_adopt || [[ ! -s $STATE/server.ready ]]; then
        die 'the device did not start:' "$(log_of server)"
    fi
    ! grep -i warning "$STATE/server.log" >&2 || true
}

# nbdkit forks, its parent ends, and it writes its pidfile once it listens. What ended without having
# forked has failed.
server_is_decided() {
    [[ -s $STATE/server.ready ]] || { process_is_gone server.pid && ! server_adopt; }
}

# server_adopt: notes the process that nbdkit forked; fails if there is none.
server_adopt() {
    local pid directory
    if read -r pid <"$STATE/server.ready" && serves_us "$pid"; then
        process_note server.pid "$pid"
        return
    fi
    for directory in /proc/[0-9]*; do
        if serves_us "${directory#/proc/}"; then
            process_note server.pid "${directory#/proc/}"
            return
        fi
    done
    return 1
} 2>/dev/null

# serves_us PID: is it an nbdkit with our socket among its arguments?
serves_us() {
    local argument
    [[ $(<"/proc/$1/comm") == nbdkit ]] && process_started "$1" >/dev/null || return 1
    while read -r -d '' argument; do
        [[ $argument == "$STATE/server.sock" ]] && return 0
    done <"/proc/$1/cmdline"
    return 1
} 2>/dev/null

connections() { local cpus; cpus=$(nproc); echo $((cpus > 4 ? 4 : cpus)); }

attach_nbd() {
    local name
    for name in /sys/block/nbd*; do
        name=${name##*/}
        [[ ! -e /sys/block/$name/pid && $(<"/sys/block/$name/size") == 0 && -b /dev/$name ]] || continue
        state_note nbd "/dev/$name"
        # By ioctl it stays as a process: one that can be recognised, as netlink's kernel thread can't.
        spawn client nbd-client -unix "$STATE/server.sock" "/dev/$name" -nonetlink -nofork -swap \
            -block-size 4096 -connections "$(connections)"
        wait_until 10 nbd_is_decided "$name"
        if nbd_is_ours "$name"; then
            DEVICE=/dev/$name
            return
        fi
        stop client # somebody else took that device in between
        state_forget nbd
    done
    die 'no /dev/nbdN could be attached:' "$(log_of client)"
}

nbd_is_decided() {
    { [[ -e /sys/block/$1/pid && $(<"/sys/block/$1/size") != 0 ]]; } 2>/dev/null ||
        process_is_gone client.pid
}

nbd_is_ours() {
    local pid
    pid=$(process_of client.pid) && [[ $(<"/sys/block/$1/pid") == "$pid" ]]
} 2>/dev/null

# device_down: everything that device_up made, in the order that loses nothing. Fails if swap can't
# be turned off; nothing is stopped then. Also right for the remains of a run that was killed.
device_down() {
    local device devices
    mapfile -t devices < <(loops_of_ours; state_word nbd; state_word swap)
    for device in "${devices[@]}"; do
        swap_off "$device" || return 1
    done
    state_forget swap
    down_fuse || return 1
    detach_nbd
    server_adopt || true # the script may have been killed before it noted that one
    stop server
    image_destroy
}

detach_nbd() {
    local device
    device=$(state_word nbd) || return 0
    nbd_is_ours "${device#/dev/}" && nbd-client -d "$device" >/dev/null
    wait_until 5 process_is_gone client.pid
    stop client
    state_forget nbd
}

# image_destroy: also what a killed server has left. Where nothing is built (yet), it stays noted.
image_destroy() {
    local image
    image=$(state_word image) && [[ -x $FARSWAP ]] || return 0
    if "$FARSWAP" list 2>/dev/null | grep -q "^$image "; then
        timeout 60 "$FARSWAP" destroy "$image" >&2 ||
            # our own donor is going, too: nothing of the image stays there
            { [[ -s $STATE/donor.log ]] && "$FARSWAP" destroy --local "$image" >&2; } ||
            { warn "image $image stays (see above)" && return 1; }
    fi
    state_forget image
}
