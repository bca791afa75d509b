# shellcheck shell=bash
# rights.sh: become root, and say which right is missing before anything is half done.
#
# Only bash and Essential packages here: it runs before apt-get has.

# become_root SCRIPT ARGUMENTS...: returns as root, or runs the script again through sudo.
become_root() {
    ((EUID != 0)) || return 0
    if command -v sudo >/dev/null; then
        say 'needs root: running again through sudo'
        exec sudo -- bash "$@"
    fi
    local command
    printf -v command '%q ' bash "$@"
    die 'needs root (to swap), and there is no sudo here' \
        "become root first, for example: su -c ${command@Q}"
}

# has_capability BIT: is it in our effective set?
has_capability() {
    local line effective=0
    while read -r line; do
        [[ $line == CapEff:* ]] && effective=0x${line##*[[:space:]]}
    done </proc/self/status
    ((effective >> $1 & 1))
}

# can_open FILE: does opening it for writing work? (A device node may be there and yet forbidden.)
can_open() { { : >"$1" || : <>"$1"; } 2>/dev/null; }

# require_rights DOOR: dies with every right that swapping through this front door lacks.
require_rights() {
    local missing=()
    has_capability 21 || missing+=('CAP_SYS_ADMIN: swapon, mount and losetup need it')
    has_capability 14 || missing+=('CAP_IPC_LOCK: locking the memory that swap is served from needs it')
    if [[ $1 == fuse ]]; then
        rights_of_fuse
    fi
    ((${#missing[@]} == 0)) || die 'cannot swap here; missing:' "${missing[@]}" \
        'in a container: run it privileged, with the host'\''s /dev'
}

rights_of_fuse() {
    if [[ ! -e /dev/fuse ]]; then
        missing+=('/dev/fuse: the kernel has neither nbd nor fuse, or the container hides it')
    elif ! (exec 3<>/dev/fuse) 2>/dev/null; then
        missing+=('/dev/fuse: it is there, but may not be opened')
    fi
    if [[ ! -e /dev/loop-control ]]; then
        missing+=('/dev/loop-control: no loop devices, or the container hides them')
    elif ! (exec 3<>/dev/loop-control) 2>/dev/null; then
        missing+=('/dev/loop-control: it is there, but may not be opened')
    fi
}
