# shellcheck shell=bash
# donor.sh: farswapd on a Unix socket, the other machine of a demonstration on one machine.

# donor_start BYTES: sets $OVERFLOW to where it listens. It plays another machine, so it does not
# spare the memory of this one, which is being squeezed; and writes wait for it for longer than for
# one that has CPUs of its own ($PATIENCE).
donor_start() {
    local socket=$STATE/donor.sock
    spawn donor "$FARSWAPD" --unix "$socket" --memory "$1" --keep-available 0
    wait_until 60 donor_is_decided
    donor_is_ready || die 'the donor did not start:' "$(log_of donor)"
    # shellcheck disable=SC2034 # for the run
    OVERFLOW=resp+unix://$socket PATIENCE=60
}

donor_is_ready() { grep -q ' ready on ' "$STATE/donor.log"; }

donor_is_decided() { donor_is_ready || process_is_gone donor.pid; }
