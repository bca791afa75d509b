# shellcheck shell=bash
# cgroup.sh: the squeeze, a memory cgroup for one command. Version 1 and version 2.
#
# Only the command is ever in it. The servers must stay outside: squeezed, they would wait for the
# swap that they serve.

# cgroup_root: prints "1 DIRECTORY" or "2 DIRECTORY" of the memory controller; fails if there is none.
cgroup_root() {
    local where type options v2=
    while read -r _ where type options _; do
        if [[ $type == cgroup && ,$options, == *,memory,* ]]; then
            printf '1 %s\n' "$where"
            return
        fi
        [[ $type == cgroup2 ]] && grep -qw memory "$where/cgroup.controllers" 2>/dev/null && v2=$where
    done </proc/self/mounts
    [[ -n $v2 ]] && printf '2 %s\n' "$v2"
}

# squeeze_make BYTES: a cgroup with that limit, in $SQUEEZE.
squeeze_make() {
    local version root
    read -r version root < <(cgroup_root) ||
        die 'no memory cgroup here (neither version 1 nor 2): nothing can be squeezed'
    SQUEEZE=$root/farswap-run-$$
    state_note cgroup "$SQUEEZE"
    if ((version == 2)); then
        grep -qw memory "$root/cgroup.subtree_control" ||
            { echo +memory >"$root/cgroup.subtree_control"; } 2>/dev/null ||
            die "$root hands out no memory controller, and may not be told to" \
                'in a container: run it with the host'\''s cgroup namespace'
    fi
    mkdir "$SQUEEZE" 2>/dev/null || die "cannot make a cgroup in $root (is it mounted read-only?)"
    if ((version == 2)); then
        echo "$1" >"$SQUEEZE/memory.max"
        echo max >"$SQUEEZE/memory.swap.max"
    else
        echo "$1" >"$SQUEEZE/memory.limit_in_bytes"
        echo 60 >"$SQUEEZE/memory.swappiness"
        # memory plus swap: where the host accounts for it, it must not be what ends the command
        [[ ! -e $SQUEEZE/memory.memsw.limit_in_bytes ]] || echo -1 >"$SQUEEZE/memory.memsw.limit_in_bytes"
    fi || die "cannot set the memory limit of $SQUEEZE"
}

# squeeze COMMAND...: runs it in $SQUEEZE and returns its status.
squeeze() {
    # shellcheck disable=SC2016 # expanded by the bash that enters the cgroup
    attended "$BASH" -c 'echo $$ >"$0/cgroup.procs" || exit 125; exec "$@"' "$SQUEEZE" "$@"
}

# squeeze_end: kills what the command has left in it, and removes it.
squeeze_end() {
    local directory
    directory=$(state_word cgroup) || return 0
    if [[ -d $directory ]] && ! wait_until 60 squeeze_is_gone "$directory"; then
        warn "$directory does not go away"
        return 1
    fi
    state_forget cgroup
    SQUEEZE=
}

squeeze_is_gone() {
    local pid
    while read -r pid; do
        kill -KILL "$pid" 2>/dev/null
    done <"$1/cgroup.procs"
    rmdir "$1" 2>/dev/null
}

# squeeze_oom_kills: how often the kernel killed in it.
squeeze_oom_kills() {
    local name count
    cat "$SQUEEZE"/memory.{events,oom_control} 2>/dev/null |
        while read -r name count; do
            [[ $name != oom_kill ]] || printf '%s' "$count"
        done
}
