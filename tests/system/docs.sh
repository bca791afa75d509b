#!/bin/bash
# docs: the documents are held to the code. What a program has and no document tells, and what a
# document tells and no program has, are both failures. Then documents are broken on purpose, one
# thing at a time, and each must be noticed, or the first half proves nothing.
#
#   docs.sh FACTS    the program made of docs_facts.c; FARSWAP_BUILD names the build directory
# shellcheck disable=SC2016 # sed and grep scripts name things in backticks
set -u
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
HERE=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
ROOT=$(realpath "$HERE/../..")
FACTS=${1:?usage: docs.sh FACTS}
BUILD=${FARSWAP_BUILD:?the build directory}
PLUGIN=$BUILD/nbdkit-plugin/nbdkit-farswap-plugin.so
FARSWAP=$BUILD/client/cli/farswap
FARSWAPD=$BUILD/server/farswapd
ATTACH=$BUILD/client/attach/farswap-attach
FUSE=$BUILD/client/fuse/farswap-fuse
NBD=$BUILD/client/nbd/farswap-nbd
PAGES=(docs/nbdkit-farswap-plugin.1 docs/farswap.1 docs/farswapd.1 docs/farswap-attach.1 docs/farswap-nbd.1
    docs/farswap-fuse.1)
TEXTS=(README.md CONTRIBUTING.md NEWS.md SECURITY.md docs/architecture.md docs/caveats.md docs/counters.md
    docs/image-format.md docs/locking.md)

command -v mandoc >/dev/null || { echo 'skipped: there is no mandoc' && exit 77; }
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
trap 'exit 143' TERM INT HUP

problem() {
    printf '%s\n' "$*" >>"$WORK/problems"
}

# ---- what the programs say ----

learn() {
    "$FACTS" >"$WORK/facts" || exit 1
    "$FARSWAPD" --help >"$WORK/farswapd.help" || exit 1
    "$FARSWAP" --help >"$WORK/farswap.help" || exit 1
    "$ROOT/scripts/run" --help >"$WORK/run.help" || exit 1
    # What nbdkit's --help shows of it, from the file: nbdkit would need a sanitizer's runtime.
    tr '\0' '\n' <"$PLUGIN" | grep -a '^[a-z_-]*=[A-Zya+]' >"$WORK/plugin.help"
    sed -n 's/^  farswap \([a-z]*\) .*/\1/p' "$WORK/farswap.help" >"$WORK/commands"
    local command
    while read -r command; do
        "$FARSWAP" "$command" --help | head -n 1 | grep -o -e '--[a-z]*'
    done <"$WORK/commands" >"$WORK/command-options"
    sed -n 's/^  --\([a-z-]*\) .*/\1/p' "$WORK/farswapd.help" >"$WORK/farswapd-options"
    "$NBD" --help >"$WORK/nbd.help" || exit 1
    sed -n 's/^  --\([a-z-]*\).*/\1/p' "$WORK/nbd.help" >"$WORK/nbd-options"
    echo version >>"$WORK/nbd-options" # on one line with --help
    sed -n 's/^  \([a-z_-]*\)=.*/\1/p' "$WORK/nbd.help" >"$WORK/nbd-parameters"
    "$ATTACH" --help >"$WORK/attach.help" || exit 1
    sed -n 's/^  --\([a-z-]*\).*/\1/p' "$WORK/attach.help" >"$WORK/attach-options"
    grep -oP '(?:(?<=\\n)|(?<="))[a-z_]+(?= %)' "$ROOT/client/attach/report.c" >"$WORK/attach-status"
    sed -n 's/^    {"\([a-z.]*\)", -\{0,1\}[0-9]*, .*run_.*/\U\1/p' "$ROOT/server/command.c" >"$WORK/resp"
}

facts() { sed -n "s/^$1 //p" "$WORK/facts"; }

# ---- comparing ----

# same WHAT CODE DOCUMENT: two files of lines, in any order.
same() {
    local line
    sort -u "$2" >"$WORK/code"
    sort -u "$3" >"$WORK/document"
    [[ -s $WORK/code ]] || problem "$1: the code names none, so this check looks at the wrong place"
    while read -r line; do
        problem "$1: $line is not documented"
    done < <(comm -23 "$WORK/code" "$WORK/document")
    while read -r line; do
        problem "$1: $line is documented and does not exist"
    done < <(comm -13 "$WORK/code" "$WORK/document")
}

# items MACRO PAGE: the names of its .It entries.
items() { sed -n "s/^\.It $1 -\{0,1\}\([A-Za-z._-]*\).*/\1/p" "$2"; }

# ---- man pages ----

check_lint() {
    local page line
    for page in "${PAGES[@]}"; do
        while read -r line; do
            problem "$line"
        done < <(mandoc -T lint -W warning "$DOCS/$page" 2>&1 | grep -v 'outdated mandoc.db')
    done
}

check_parameters() {
    local page=$DOCS/docs/nbdkit-farswap-plugin.1 name default
    same parameter <(facts param | cut -d ' ' -f 1) <(items Cm "$page")
    while read -r name default; do
        grep -q "^$name=" "$WORK/plugin.help" || problem "nbdkit's --help does not tell $name="
        [[ -z $default ]] || awk -v name="$name" '/^\.It/ { here = $3 == name } here' "$page" |
            tr '\n' ' ' | grep -q "default.*\b$default\|\b$default.*default" ||
            problem "parameter: the default of $name, $default, is not documented"
    done < <(facts param)
}

# "NAME KIND UNIT" of each counter and gauge.
documented_stats() {
    awk '/^\.Sh/ { kind = $2 == "COUNTERS" ? "counter" : $2 == "GAUGES" ? "gauge" : "" }
        kind && /^\.It Va/ { print $3, kind, $5 }' "$DOCS/docs/farswap.1"
}

check_commands() {
    local page=$DOCS/docs/farswap.1
    same counter <(facts stat) <(documented_stats)
    same 'farswap command' "$WORK/commands" <(items Ic "$page")
    same 'option of farswap' "$WORK/command-options" <(items Fl "$page" | sed 's/^-*/--/')
}

check_farswapd() {
    local page=$DOCS/docs/farswapd.1
    same 'farswapd option' "$WORK/farswapd-options" <(items Fl "$page")
    same 'RESP command' "$WORK/resp" <(items Ic "$page")
    same 'farswapd limit' <(facts limit) <(sed -n 's/^\.It Li //p' "$page")
}

check_nbd() {
    same 'farswap-nbd option' "$WORK/nbd-options" <(items Fl "$DOCS/docs/farswap-nbd.1")
    same 'farswap-nbd parameter' "$WORK/nbd-parameters" <(items Cm "$DOCS/docs/nbdkit-farswap-plugin.1")
}

check_fuse() {
    local page=$DOCS/docs/farswap-fuse.1
    same 'farswap-fuse option' <("$FUSE" --help | sed -n 's/^  --\([a-z-]*\).*/\1/p' | cat - <(echo version)) \
        <(items Fl "$page")
    same 'file of farswap-fuse' <(sed -n 's/^    {"\([a-z_]*\)", 0[0-7]*, .*/\1/p' "$ROOT/client/fuse/knobs.c") \
        <(items Pa "$page")
}

check_attach() {
    local page=$DOCS/docs/farswap-attach.1
    same 'farswap-attach option' "$WORK/attach-options" <(items Fl "$page")
    same 'line of farswap-attach --status' "$WORK/attach-status" <(items Va "$page")
}

# ---- the image ----

# Rows of the table under the heading that names a structure: "STRUCT FIELD OFFSET BYTES".
documented_fields() {
    sed -n 's/^### `struct fsw_\([a-z_]*\)`.*/in \1/p
        s/^### .*/in -/p
        s/^| \([0-9]*\) | \([0-9]*\) | `\([a-z_]*\)` |.*/field \3 \1 \2/p' "$DOCS/docs/image-format.md" |
        awk '$1 == "in" { name = $2 } $1 == "field" { print name, $2, $3, $4 }'
}

# Rows "| `NAME` | FIRST | COUNT |".
documented_bits() {
    sed -n 's/^| `\([a-z.]*\)` | \([0-9]*\) | \([0-9]*\) |.*/\1 \2 \3/p' "$DOCS/docs/image-format.md"
}

# Rows "| `NAME` | VALUE |", of all documents.
documented_constants() {
    sed -n 's/^| `\([A-Za-z_]*[A-Za-z]\)` | \([0-9,]*\) |.*/\1 \2/p' "$DOCS"/docs/*.md | tr -d ,
}

check_image() {
    same field <(facts field) <(documented_fields)
    same 'bits of an entry' <(facts bits) <(documented_bits)
    same constant <(facts constant) <(documented_constants | grep -i '^fsw_')
    same codec <(facts codec) <(sed -n 's/^| \([0-9]\) | `\([a-z0-9]*\)` |.*/\1 \2/p' "$DOCS/docs/image-format.md")
}

# ---- paths and commands that texts name ----

# Every path below a folder of ours; "build/" is the build directory, whatever its name here.
check_paths() {
    local text path where
    local folders='\.ci|bench|build|client|common|core|docs|include|nbdkit-plugin|scripts|server|tests'
    for text in "${TEXTS[@]}"; do
        while read -r path; do
            where=$DOCS/$path
            [[ $path == docs/* || ! -e $ROOT/${path%%/*} ]] || where=$ROOT/$path
            [[ $path != build/* ]] || where=$BUILD/${path#build/}
            compgen -G "$where" >/dev/null || problem "$text: $path does not exist"
        done < <(grep -oP "(?<![\w./-])(?:$folders)/[\w./*-]*[\w*]" "$DOCS/$text" | sort -u)
        while read -r path; do
            [[ -e $(dirname "$DOCS/$text")/$path || -e $ROOT/$path ]] || problem "$text: the link $path leads nowhere"
        done < <(grep -oP '\]\(\K(?!https?:)[^)#]+' "$DOCS/$text" | sort -u)
    done
}

# Lines of the ```sh blocks, continued ones joined, without comments.
shell_lines() {
    sed -n '/^ *```sh/,/^ *``` *$/{/```/!p}' "$1" | sed -e ':a' -e '/\\$/{N;s/\\\n//;ba' -e '}' -e 's/\(^\| \)# .*//'
}

check_commands_in() { # TEXT
    local line first
    while read -r line; do
        first=${line%% *}
        [[ -n $first ]] || continue
        [[ $first == */* || $first == farswap || $first == farswapd ]] || type -t "$first" >/dev/null ||
            problem "$1: the command $first does not exist"
        check_words "$1" "$line"
    done < <(shell_lines "$DOCS/$1" | tr '|' '\n' | sed 's/^ *\([A-Z_]*=[^ ]* \)*//')
    while read -r line; do
        check_words "$1" "$line"
    done < <(grep -oP '(?<!`)`\K(farswap|scripts/run|farswapd) [^`]*' "$DOCS/$1")
}

# What follows the name of a program of ours is a command or an option of it.
check_words() { # TEXT LINE
    local word words
    read -ra words <<<"$2"
    for word in "${words[@]:1}"; do
        [[ $word != -- ]] || break
        word=${word%[.,;:]}
        case ${words[0]##*/}:$word in
        run:--*) grep -q -e "$(printf '%s' "${word%%=*}")\b" "$WORK/run.help" ;;
        farswapd:--*) grep -qx -e "${word#--}" "$WORK/farswapd-options" ;;
        farswap:--help | farswap:--version) ;;
        farswap:--*) grep -qx -e "$word" "$WORK/command-options" ;;
        nbdkit:[a-z]*=* | farswap:[a-z]*=* | farswap-*:[a-z]*=*)
            [[ $word == overflow-lost=* ]] || facts param | grep -q "^${word%%=*} "
            ;;
        farswap:[a-z]*) [[ $word != "${words[1]}" ]] || grep -qx -e "$word" "$WORK/commands" ;;
        *) ;;
        esac || problem "$1: $2: $word does not exist"
    done
}

check_version() {
    local version
    version=$("$FARSWAP" --version) && version=${version#farswap }
    grep -q "^## $version\b" "$DOCS/NEWS.md" || problem "NEWS.md does not tell of version $version"
}

# ---- all of it, and whether it can fail ----

check_all() {
    local text
    check_lint
    check_parameters
    check_commands
    check_farswapd
    check_nbd
    check_fuse
    check_attach
    check_image
    check_paths
    for text in "${TEXTS[@]}"; do
        check_commands_in "$text"
    done
    check_version
}

# broken CHECK FILE SED-SCRIPT PROBLEM: with that change, CHECK says that.
broken() {
    DOCS=$WORK/copy
    : >"$WORK/problems"
    sed "$3" "$ROOT/$2" >"$DOCS/$2"
    if cmp -s "$ROOT/$2" "$DOCS/$2"; then
        echo "FAIL: sed '$3' does not change $2" && exit 1
    fi
    $1 "$2"
    cp "$ROOT/$2" "$DOCS/$2"
    grep -q -e "$4" "$WORK/problems" || {
        echo "FAIL: $2 broken by sed '$3' was not noticed; found: $(cat "$WORK/problems")" && exit 1
    }
}

learn
DOCS=$ROOT
: >"$WORK/problems"
check_all
if [[ -s $WORK/problems ]]; then
    echo "FAIL: $(wc -l <"$WORK/problems") problems" && cat "$WORK/problems" && exit 1
fi
mkdir "$WORK/copy"
(cd "$ROOT" && cp --parents "${PAGES[@]}" "${TEXTS[@]}" "$WORK/copy") || exit 1
broken check_parameters docs/nbdkit-farswap-plugin.1 's/^\.It Cm codec/.It Cm coder/' 'codec is not documented'
broken check_parameters docs/nbdkit-farswap-plugin.1 's/^\.It Cm codec/.It Cm coder/' 'coder is documented and does not exist'
broken check_parameters docs/nbdkit-farswap-plugin.1 's/^The default is 20%/The default is 30%/' 'default of memory, 20%'
broken check_lint docs/nbdkit-farswap-plugin.1 's/^\.Sh FILES/.Hs FILES/' 'unknown macro'
broken check_commands docs/farswap.1 's/^\.It Va no_space.*/.It Va no_place Pq pages/' 'no_space counter pages is not documented'
broken check_commands docs/farswap.1 's/^\(\.It Va write_stall_ns Pq\) ns/\1 seconds/' 'write_stall_ns counter ns is not documented'
broken check_commands docs/farswap.1 's/^\.It Ic check/.It Ic prove/' 'farswap command: check is not documented'
broken check_commands docs/farswap.1 's/^\.It Fl -local/.It Fl -near/' 'option of farswap: --near is documented'
broken check_farswapd docs/farswapd.1 's/^\.It Fl -memory/.It Fl -mammary/' 'farswapd option: memory is not documented'
broken check_farswapd docs/farswapd.1 's/^\.It Ic SCAN/.It Ic KEYS/' 'RESP command: SCAN is not documented'
broken check_farswapd docs/farswapd.1 's/^\(\.It Li key_bytes\) 128/\1 256/' 'farswapd limit: key_bytes 128 is not documented'
broken check_nbd docs/farswap-nbd.1 's/^\.It Fl -listen/.It Fl -hearken/' 'farswap-nbd option: listen is not documented'
broken check_fuse docs/farswap-fuse.1 's/^\.It Fl -supervise/.It Fl -watch/' 'farswap-fuse option: supervise is not documented'
broken check_fuse docs/farswap-fuse.1 's/^\.It Pa mm_stat/.It Pa mm_state/' 'file of farswap-fuse: mm_stat is not documented'
broken check_attach docs/farswap-attach.1 's/^\.It Fl -force/.It Fl -farce/' 'farswap-attach option: force is not documented'
broken check_attach docs/farswap-attach.1 's/^\.It Va spare/.It Va square/' 'status: square is documented'
broken check_image docs/image-format.md 's/^| [0-9]* | 4 | `rows_top`/| 1 | 4 | `rows_top`/' 'superblock rows_top 1 4 is documented'
broken check_image docs/image-format.md 's/^| `age` | 52/| `age` | 51/' 'age 52 8 is not documented'
broken check_image docs/image-format.md 's/^| 4 | `zstd`/| 3 | `zstd`/' 'codec: 4 zstd is not documented'
broken check_paths README.md 's/scripts\/test/scripts\/proof/' 'scripts/proof does not exist'
broken check_commands_in README.md 's/farswap destroy/farswap remove/' 'remove does not exist'
broken check_commands_in README.md 's/swapon --discard/swap-on --discard/' 'swap-on does not exist'
broken check_commands_in README.md 's/--requirepass-file/--requirepass/' '--requirepass does not exist'
broken check_commands_in README.md 's/memory=/memmory=/' 'memmory=.* does not exist'
broken check_paths README.md 's/docs\/caveats.md/docs\/caviar.md/' 'caviar.md'
broken check_version NEWS.md 's/^## 0/## 9/' 'NEWS.md does not tell'
echo ok
