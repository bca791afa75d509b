/*
 * survival.c: who watches a farswap-fuse, told by /proc: a supervised server is its supervisor's
 * child, and so is its spare (client/fuse/supervise.h). Children of a supervisor that died are
 * somebody else's; one that comes after it (client/fuse/adopt.h) has the spare alone.
 */
#include "client/cli/survival.h"

#include <string.h>

#include "common/kernel.h"
#include "common/proc.h"

#define SERVER "farswap-fuse"

int survival_kernel_asks_again(void)
{
    return fsw_kernel_is_at_least(6, 9);
}

/* A farswap-fuse: 1 and its parent. */
static int is_server(pid_t pid, pid_t *ret_parent)
{
    return fsw_proc_is(pid, SERVER, ret_parent);
}

/* A word of its command line is the device's name, as farswap-fuse is given it. */
static int is_for(pid_t pid, const char *device)
{
    char words[4096];
    size_t n = fsw_proc_words(pid, words, sizeof words);
    int found = 0;

    for (size_t at = 0; at < n && !found; at += strlen(words + at) + 1)
        found = strcmp(words + at, device) == 0;
    return found;
}

struct others {
    const char *device;
    pid_t server;
    int spare; /* another one of that device */
    int supervised; /* and it has a supervisor, which a server that was there before is watched by, too */
};

static int look_at(pid_t pid, void *opaque)
{
    struct others *others = opaque;
    pid_t parent, above;

    if (pid == others->server || !is_server(pid, &parent) || !is_for(pid, others->device))
        return 0;
    others->spare = 1;
    others->supervised = is_server(parent, &above) && is_for(parent, others->device);
    return others->supervised;
}

enum survival survival_of(const struct fsw_record *record, int pid)
{
    struct others others = {.device = record->name, .server = pid};
    pid_t parent, above;

    if (!record->served || !is_server(pid, &parent))
        return SURVIVAL_UNKNOWN;
    if (!survival_kernel_asks_again())
        return SURVIVAL_OLD_KERNEL;
    if (is_server(parent, &above) && is_for(parent, record->name))
        return SURVIVAL_SURE;
    fsw_proc_each(look_at, &others);
    return others.supervised ? SURVIVAL_SURE : others.spare ? SURVIVAL_ONCE : SURVIVAL_ALONE;
}

int survival_can_be_had(enum survival survival)
{
    return survival == SURVIVAL_ONCE || survival == SURVIVAL_ALONE;
}

int survival_is_bad(enum survival survival)
{
    return survival > SURVIVAL_SURE;
}

const char *survival_text(enum survival survival)
{
    switch (survival) {
    case SURVIVAL_ONCE:
        return "farswap-fuse has lost its supervisor: it survives one more crash, and the one "
               "after that loses the swap. `farswap up` of its name starts another";
    case SURVIVAL_ALONE:
        return "farswap-fuse runs without a supervisor: if it crashes, what is swapped is lost. "
               "`farswap up` of its name starts one";
    case SURVIVAL_OLD_KERNEL:
        return "this kernel (before 6.9) can't ask a new farswap-fuse for what the old one was "
               "asked: if it crashes, what is swapped is lost. Use nbd (--door nbd), or a newer "
               "kernel";
    case SURVIVAL_UNKNOWN:
    case SURVIVAL_SURE:
    default:
        return "";
    }
}
