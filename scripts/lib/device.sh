# shellcheck shell=bash
# device.sh: the server, and what makes a block device of it.
#
#   nbd     the kernel's client: nbd.sh
#   fuse    where there is none: fuse.sh
#
# Going down is the other way round, and begins with swapoff: a server that stops under an active
# swap takes every page on it along.

IMAGE=farswap-run

# shellcheck disable=SC2034 # for the run
declare -A DOOR_TEXT=(
    [nbd]="the kernel's nbd, with farswap-attach"
    [fuse]='FUSE and a loop device (this kernel has no nbd)')

# door_choose: prints nbd or fuse, whichever works here.
door_choose() {
    if [[ -b /dev/nbd0 ]] || { modprobe nbd && wait_until 20 test -b /dev/nbd0; } 2>/dev/null; then
        echo nbd
    else
        echo fuse
    fi
}

# device_up DOOR SIZE MEMORY CODEC OVERFLOW: sets $DEVICE.
device_up() {
    "up_$1" "${@:2}"
}

# device_down: everything that device_up made, in the order that loses nothing. Fails if swap can't
# be turned off; nothing is stopped then. Also right for the remains of a run that was killed.
device_down() {
    local device devices
    mapfile -t devices < <(loops_of_ours; state_word nbd >/dev/null && nbd_device; state_word swap)
    for device in "${devices[@]}"; do
        swap_off "$device" || return 1
    done
    state_forget swap
    down_fuse || return 1
    down_nbd || return 1
    stop server
    image_destroy
}

# image_destroy: also what a killed server has left. Where nothing is built (yet), it stays noted.
image_destroy() {
    local image
    image=$(state_word image) && [[ -x $FARSWAP ]] || return 0
    if "$FARSWAP" stats "$image" >/dev/null 2>&1; then # not list, which has orphans of others, too
        wait_until 60 image_is_free "$image" || true # its server was told to end, and does
        timeout 60 "$FARSWAP" destroy "$image" >&2 ||
            # our own donor is going, too: nothing of the image stays there
            { [[ -s $STATE/donor.log ]] && "$FARSWAP" destroy --local "$image" >&2; } ||
            { warn "image $image stays (see above)" && return 1; }
    fi
    state_forget image
}

image_is_free() { ! "$FARSWAP" list 2>/dev/null | grep -q "^$1 .* served "; }
