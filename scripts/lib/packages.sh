# shellcheck shell=bash
# packages.sh: the lists in scripts/packages, and what of them this machine lacks.
#
# A machine that has them all is not asked to run apt-get: that keeps a second run fast, and lets
# scripts/run work without a network.

# packages_of LIST...: the names in scripts/packages/LIST.
packages_of() {
    local list line
    for list; do
        while read -r line; do
            line=${line%%#*}
            [[ -z ${line//[[:space:]]/} ]] || printf '%s\n' "${line//[[:space:]]/}"
        done <"$SCRIPTS/packages/$list"
    done
}

# packages_missing NAME...: those that are not installed.
packages_missing() {
    local name status line
    declare -A installed=()
    while read -r status name; do
        [[ $status == installed ]] && installed[${name%%:*}]=1
    done < <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null)
    for line; do
        [[ -n ${installed[$line]:-} ]] || printf '%s\n' "$line"
    done
}

# packages_install LIST...: after it, all of them are installed; or it dies with their names.
packages_install() {
    local wanted missing
    command -v dpkg-query >/dev/null || die 'this is not Debian (no dpkg)' \
        "install by hand: $(packages_of "$@" | tr '\n' ' ')"
    mapfile -t wanted < <(packages_of "$@")
    mapfile -t missing < <(packages_missing "${wanted[@]}")
    ((${#missing[@]})) || return 0
    say "installing ${#missing[@]} packages: ${missing[*]}"
    if ! { apt update && apt install --no-install-recommends "${missing[@]}"; }; then
        die 'apt-get failed; these packages are needed:' "${wanted[*]}" \
            'install them by hand and run this again'
    fi
}

# apt VERB ARGUMENTS...: apt-get, asking nothing, waiting for another apt-get to finish.
apt() {
    local tries
    # DPkg::Lock::Timeout waits for dpkg's lock, but nothing waits for that of the package lists.
    for tries in {1..20}; do
        attended env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
            -o Dpkg::Use-Pty=0 "$@" >&2 && return 0
        [[ $1 == update && $tries -lt 20 ]] && lists_are_locked || return 1
        say 'another apt-get holds the package lists; waiting'
        sleep 3
    done
}

lists_are_locked() {
    local inode line
    inode=$(stat -c %i /var/lib/apt/lists/lock 2>/dev/null) || return 1
    while read -r line; do
        [[ $line == *":$inode "* ]] && return 0
    done </proc/locks
    return 1
}
