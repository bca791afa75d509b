# shellcheck shell=bash
# services.sh: test packages bring services (redis-server), and their installation would start them.
#
# Debian asks /usr/sbin/policy-rc.d first; a machine's own is left as it is.

POLICY=/usr/sbin/policy-rc.d
POLICY_MARK='# made by farswap scripts/test, which removes it'

services_stay_off() {
    [[ -e $POLICY ]] && return
    printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
    chmod 755 "$POLICY"
}

services_as_before() {
    ! grep -qsxF "$POLICY_MARK" "$POLICY" || rm -f "$POLICY"
}
