# shellcheck shell=bash
# fuse.sh: the front door where the kernel has no nbd.
#
#     farswap-fuse ── $STATE/mnt/disk ── /dev/loopN
#
# It is supervised: a server that is killed is followed by another, and the swap on it lives on
# (Linux 6.9; on older kernels it says that it can't).

DISK=$STATE/mnt/disk

# up_fuse SIZE MEMORY CODEC OVERFLOW: sets $DEVICE.
up_fuse() {
    local overflow=()
    [[ $4 == none ]] || overflow=("overflow=$4" ${PATIENCE:+"write_wait=$PATIENCE"})
    state_note image "$IMAGE"
    mkdir -p "$STATE/mnt"
    spawn server "$FUSE" --supervise "$STATE/mnt" "$IMAGE" \
        "size=$1" "memory=$2" "codec=$3" "${overflow[@]}"
    wait_until 60 fuse_is_decided
    [[ -s $DISK ]] || die 'the device did not start:' "$(log_of server)"
    ! grep -i warning "$STATE/server.log" >&2 || true
    DEVICE=$(losetup --find --show --direct-io=on "$DISK" 2>&1) || die 'no loop device:' "$DEVICE"
}

fuse_is_decided() { [[ -s $DISK ]] || process_is_gone server.pid; } 2>/dev/null

# loops_of_ours: the loop devices over $DISK. They are found by what they are over, which was known
# before they were made.
loops_of_ours() {
    local file backing
    for file in /sys/block/loop*/loop/backing_file; do
        { read -r backing <"$file"; } 2>/dev/null || continue
        file=${file#/sys/block/}
        [[ ${backing% (deleted)} != "$DISK" ]] || printf '/dev/%s\n' "${file%%/*}"
    done
}

loops_are_gone() { [[ -z $(loops_of_ours) ]]; }

mount_is_gone() { ! grep -q " $STATE/mnt " /proc/self/mounts; }

# down_fuse: the server ends when its mount does. Harmless where there is none.
down_fuse() {
    local device mounted=
    mount_is_gone || mounted=1
    while read -r device; do
        losetup --detach "$device"
    done < <(loops_of_ours)
    if ! wait_until 60 loops_are_gone || ! wait_until 60 unmount; then
        warn "$STATE/mnt is in use and stays, and so does what serves it:" "$(loops_of_ours)"
        return 1
    fi
    [[ -n $mounted ]] || return 0
    wait_until 60 process_is_gone server.pid && say 'server stopped' || true
}

unmount() { mount_is_gone || umount "$STATE/mnt" 2>/dev/null; }
