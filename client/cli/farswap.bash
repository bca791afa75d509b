# shellcheck shell=bash
# farswap.bash: completion of the farswap command, for bash. It needs nothing of bash-completion.
#
# Commands, options and parameters stand here, so that a Tab costs no process; names of devices are
# asked of `farswap list`. tests/system/cli-completion.py compares all of it with --help.

_farswap_commands='up down status top list stats check compact overflow set destroy doctor'
_farswap_keys='size= memory= codec= overflow= overflow-password= overflow-plaintext= prefetch= fetch_timeout= watermarks= write_wait= read_age= huge= overflow_limit='

declare -gA _farswap_options=(
    [up]='--priority --door'
    [down]='--keep --force'
    [status]='--json'
    [overflow]='--idle --huge --all'
    [stats]='--explain --classes'
    [destroy]='--local'
)

# But orphans, below which `list` says "no file names it".
_farswap_names() {
    local name last='' number=0
    while read -r name _; do
        [[ -z $last || $name == no ]] || printf '%s\n' "$last"
        last=
        [[ $name == no ]] || ((number++ == 0)) || last=$name # but the heading
    done < <("${COMP_WORDS[0]}" list 2>/dev/null)
    [[ -z $last ]] || printf '%s\n' "$last"
}

# A device was named already, among the words between the command and this one.
_farswap_is_named() {
    local word i
    for ((i = 2; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        [[ $word == -* || ${COMP_WORDS[i - 1]} == --priority ||
            ${COMP_WORDS[i - 1]} == --door || ${COMP_WORDS[i - 1]} == --idle ]] || return 0
    done
    return 1
}

_farswap_words() {
    local command=${COMP_WORDS[1]} current=$1
    case ${COMP_WORDS[COMP_CWORD - 1]} in
    --door) echo nbd fuse && return ;;
    --priority | --idle) return ;;
    esac
    if ((COMP_CWORD == 1)); then
        echo "$_farswap_commands --help --version"
    elif [[ $current == -* ]]; then
        echo "${_farswap_options[$command]-} --help"
    elif [[ $command == list ]]; then
        return
    elif ! _farswap_is_named; then
        _farswap_names
    elif [[ $command == up ]]; then
        echo "$_farswap_keys"
    elif [[ $command == set ]]; then
        echo 'memory= codec= prefetch= fetch_timeout= watermarks= write_wait= read_age= huge= overflow_limit= overflow-lost='
    fi
}

_farswap() {
    local current=${COMP_WORDS[COMP_CWORD]}
    # with bash's own COMP_WORDBREAKS a value is a word of its own: values are not completed
    [[ $current != = && ${COMP_WORDS[COMP_CWORD - 1]} != = ]] || return 0
    mapfile -t COMPREPLY < <(compgen -W "$(_farswap_words "$current")" -- "$current")
    [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace 2>/dev/null || true
}

complete -F _farswap farswap
