# shellcheck shell=bash
# nbd.sh: the front door where the kernel has nbd.
#
#     farswap-attach ── farswap-nbd ── /dev/nbdN
#
# It is supervised: a server that is killed is followed by another, and the swap on it lives on. A
# supervisor that is killed leaves device and server; `farswap-attach --detach` takes both away.

# up_nbd SIZE MEMORY CODEC OVERFLOW: sets $DEVICE.
up_nbd() {
    local overflow=()
    [[ $4 == none ]] || overflow=("overflow=$4" ${PATIENCE:+"write_wait=$PATIENCE"})
    state_note image "$IMAGE"
    state_note nbd "$IMAGE"
    spawn attach "$ATTACH" "$IMAGE" "size=$1" "memory=$2" "codec=$3" "${overflow[@]}"
    wait_until 60 nbd_is_decided
    DEVICE=$(nbd_device)
    [[ -b $DEVICE ]] && ! process_is_gone attach.pid || die 'the device did not start:' "$(log_of attach)"
    process_note server.pid "$(nbd_word server)"
    ! grep -i warning "$STATE/attach.log" >&2 || true
}

nbd_is_decided() { "$ATTACH" --status "$IMAGE" >/dev/null 2>&1 || process_is_gone attach.pid; }

# nbd_word WORD: the first word of that line of the status.
nbd_word() {
    local name value
    [[ -x $ATTACH ]] || return 0
    while read -r name value _; do
        [[ $name != "$1" || $value == - ]] || printf '%s\n' "$value"
    done < <("$ATTACH" --status "$IMAGE" 2>/dev/null)
}

# nbd_device: the device, also of a supervisor that was killed.
nbd_device() { nbd_word device; }

# down_nbd: the server ends with the device. Harmless where there is none.
down_nbd() {
    local output
    state_word nbd >/dev/null || return 0
    if [[ -n $(nbd_device) ]] && ! output=$("$ATTACH" --detach "$IMAGE" 2>&1); then
        warn "$output"
        return 1
    fi
    stop attach # one that has not come so far
    state_forget nbd
}
