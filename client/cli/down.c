/*
 * down.c: farswap down. From swap that is on to nothing:
 *
 *      swapoff ─ door (block device, server) ─ image, with what its store holds
 *
 * In this order, since a server that ends under swap takes all its pages along: whatever can't be
 * done leaves the rest as it is. What is gone already is passed over.
 */
#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/claim.h"
#include "client/cli/cli.h"
#include "client/cli/doors.h"
#include "client/cli/progress.h"
#include "client/cli/swap.h"
#include "common/parse.h"

struct request {
    const char *name;
    int keep, force;
};

static int parse(struct request *request, char **argv)
{
    for (int i = 1; argv[i] != NULL; i++) {
        if (strcmp(argv[i], "--keep") == 0)
            request->keep = 1;
        else if (strcmp(argv[i], "--force") == 0)
            request->force = 1;
        else if (argv[i][0] == '-' || request->name != NULL || !fsw_name_valid(argv[i]))
            return -EINVAL;
        else
            request->name = argv[i];
    }
    return request->name != NULL ? 0 : -EINVAL;
}

/* 1: it was on. */
static int end_swap(const struct request *request, const struct fsw_record *record,
                    struct fsw_error *err)
{
    struct host_swap swap;
    char used[FSW_SIZE_TEXT];
    uint64_t began = fsw_now_ns();

    if (!host_swap_of(record, &swap))
        return 0;
    int r = swap_off(&swap, request->force, err);
    if (r < 0)
        return r;
    door_say(request->name, "swap is off: %s came back from %s (%.2f s)",
             fsw_format_size(swap.used, used), swap.path,
             (double)(fsw_now_ns() - began) / FSW_NS_PER_S);
    return 1;
}

/* 1: one was there. */
static int end_doors(const char *name, struct fsw_error *err)
{
    int fuse = door_fuse.down(name, err);

    if (fuse < 0)
        return fuse;
    int nbd = access("/sys/module/nbd", F_OK) == 0 ? door_nbd.down(name, err) : 0;
    if (nbd < 0)
        return nbd;
    if (fuse || nbd)
        door_say(name, "server and block device are gone");
    return fuse || nbd;
}

static int end_image(const struct request *request, int was_up, struct fsw_error *err)
{
    struct fsw_record record;
    char name[FSW_NAME_MAX + 1], *argv[] = {"destroy", name, NULL};
    int r = fsw_registry_read(request->name, -1, &record, err);

    if (r == -ENOENT) {
        if (!was_up)
            door_say(request->name, "is down already");
        return 0;
    }
    if (r < 0)
        return r;
    if (record.served)
        return fsw_error(err, -EBUSY,
                         "another program serves it, which `farswap up` did not start "
                         "(`farswap status %s` shows it): stop that first",
                         request->name);
    if (request->keep) {
        door_say(request->name, "%s; the image stays, and the memory it takes",
                 was_up ? "is down" : "is down already");
        return 0;
    }
    snprintf(name, sizeof name, "%s", request->name);
    return cli_destroy.run(2, argv) == CLI_OK
               ? 0
               : fsw_error(err, -EIO, "is down, but the image stays (see above)");
}

static int take_down(const struct request *request, struct fsw_error *err)
{
    struct fsw_record record;
    struct progress progress;

    int r = fsw_registry_read(request->name, -1, &record, err);
    if (r < 0 && r != -ENOENT)
        return r;
    int swapped = r == 0 ? end_swap(request, &record, err) : 0;
    if (swapped < 0)
        return swapped;
    progress_begin(&progress, NULL, 0, "%s: the server ends", request->name);
    int doors = end_doors(request->name, err);
    progress_end(&progress);
    return doors < 0 ? doors : end_image(request, swapped || doors, err);
}

static int down(const struct request *request, struct fsw_error *err)
{
    if (!host_may(CAP_SYS_ADMIN))
        return fsw_error(err, -EPERM, "down needs root (CAP_SYS_ADMIN): it ends swap and unmounts");
    int claim = claim_take(request->name, err);
    if (claim < 0)
        return claim;
    int r = take_down(request, err);
    claim_drop(request->name, claim);
    return r;
}

static int run(int argc, char **argv)
{
    struct request request = {NULL};
    struct fsw_error err = {""};

    if (parse(&request, argv) < 0)
        return cli_usage(&cli_down, 0);
    int r = down(&request, &err);
    if (r < 0)
        fprintf(stderr, "farswap: %s: %s\n", request.name, err.text);
    return r == -ENOMEM ? CLI_NO_MEMORY : r < 0 ? CLI_FAILED : CLI_OK;
}

const struct cli_command cli_down = {
    .name = "down",
    .arguments = "[--keep] [--force] NAME",
    .summary = "swap off, server ended, image destroyed",
    .help =
        "Brings every page back to RAM (or to other swap), shows on a terminal how many bytes are "
        "left, ends the\n"
        "server and its block device, and destroys the image with what its store holds. When there "
        "is not\n"
        "enough RAM for swapoff, it says how much is missing, and everything stays up (exit code "
        "3). "
        "May be\n"
        "repeated.\n\n"
        "  --keep   the image stays, for the next `farswap up`\n"
        "  --force  begin although RAM is missing: what fits comes back, then it stops\n"
        "           (a process larger than RAM can't be stopped half-way: see the man page)\n",
    .examples = "  farswap down swap0\n"
                "  farswap down --keep swap0 && farswap up swap0\n",
    .run = run,
};
