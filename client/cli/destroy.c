/*
 * destroy.c: farswap destroy. Wipes a device's image and makes its store forget it, and those of earlier
 * devices of its name forget them (core/predecessors.h), also if there is no image any more.
 *
 * The stores first: while one has not forgotten, the image and its files stay, and the command can be
 * given again. With --local no store is asked; what it holds stays there.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "client/cli/progress.h"
#include "client/door/recorded.h"
#include "core/predecessors.h"

static int forget(const struct fsw_record *record)
{
    struct fsw_error err = {""};
    struct progress progress;
    uint64_t segments = 0;

    if (record->overflow[0] == '\0')
        return CLI_OK;
    progress_begin(&progress, NULL, 0, "%s: %.100s forgets it", record->name, record->overflow);
    int r = fsw_recorded_store_forget(record, &segments, &err);
    progress_end(&progress);
    if (r < 0) {
        fprintf(stderr,
                "farswap: %s\nfarswap: nothing was destroyed, since %s still holds pages of %s: "
                "try again when it "
                "answers, or leave them there with `farswap destroy --local %s`\n",
                err.text, record->overflow, record->name, record->name);
        return CLI_FAILED;
    }
    printf("%s: %llu segments dropped at %s\n", record->name, (unsigned long long)segments,
           record->overflow);
    return CLI_OK;
}

/* ---- earlier devices of the name ---- */

struct earlier {
    int local;
    unsigned count, failed;
};

static int forget_earlier(const struct fsw_record *record, void *opaque)
{
    struct earlier *earlier = opaque;

    earlier->count++;
    if (!earlier->local && forget(record) != CLI_OK)
        earlier->failed++;
    else
        fsw_predecessors_forgotten(record);
    return 0;
}

static struct earlier destroy_earlier(const char *name, int local)
{
    struct earlier earlier = {.local = local};

    fsw_predecessors_each(name, forget_earlier, &earlier);
    return earlier;
}

/* The host was started again since, and no device of that name came. */
static int destroy_what_is_left(const char *name, int local, const struct fsw_error *unknown)
{
    struct earlier earlier = {0};
    struct fsw_error err;
    int lock;

    if (!fsw_name_valid(name))
        return cli_fail(unknown);
    if (fsw_registry_lock(name, &lock, &err) < 0)
        return cli_fail(&err);
    int r = fsw_predecessors_retire(name, &err);
    if (r == 0)
        earlier = destroy_earlier(name, local);
    fsw_registry_unlock(name, lock);
    if (r < 0)
        return cli_fail(&err);
    if (earlier.count == 0)
        return cli_fail(unknown);
    if (earlier.failed > 0)
        return CLI_FAILED;
    printf("%s: its memory was gone already\n%s: destroyed\n", name, name);
    return CLI_OK;
}

/* ---- the device ---- */

static int wipe(const struct fsw_record *record, int orphan, int lock, struct fsw_error *err)
{
    struct fsw_image image;
    int r = fsw_registry_attach(record, 1, &image, err);

    if (r == 0)
        r = fsw_image_wipe(&image, err);
    else if (r == -EUCLEAN || r == -ENOTSUP)
        r = fsw_image_wipe_damaged(record->shmid, err);
    else if (r == -ENOENT) { /* the files go, too */
        printf("%s: its memory was gone already\n", record->name);
        r = 0;
    }
    if (r < 0)
        return r;
    if (!orphan)
        fsw_registry_remove(record->name);
    if (lock >= 0)
        close(lock);
    printf("%s: destroyed\n", record->name);
    return 0;
}

static int run(int argc, char **argv)
{
    struct fsw_error err = {""};
    struct fsw_record record;
    int orphan, lock = -1, local = cli_take_option(&argc, argv, "--local");

    if (argc != 2 || argv[1][0] == '-')
        return cli_usage(&cli_destroy, 0);
    int r = cli_find(argv[1], &record, &orphan, &err);
    if (r == -ENOENT)
        return destroy_what_is_left(argv[1], local, &err);
    if (r < 0)
        return cli_fail(&err);
    if (orphan && record.served) {
        fprintf(stderr,
                "farswap: shared memory %d is in use: a server works on it whose FARSWAP_RUNDIR is "
                "another. "
                "swapoff and stop it first\n",
                record.shmid);
        return CLI_FAILED;
    }
    if (!orphan && fsw_registry_lock(record.name, &lock, &err) < 0) {
        fprintf(stderr, "farswap: %s: swapoff and stop its server first\n", err.text);
        return CLI_FAILED;
    }
    if (!orphan && destroy_earlier(record.name, local).failed > 0)
        return CLI_FAILED;
    if (!local && forget(&record) != CLI_OK)
        return CLI_FAILED;
    return wipe(&record, orphan, lock, &err) < 0 ? cli_fail(&err) : CLI_OK;
}

const struct cli_command cli_destroy = {
    .name = "destroy",
    .arguments = "[--local] NAME|shmid:N",
    .summary = "wipes a device's image, also at its store",
    .help =
        "All pages of the device are lost. Refused while a server holds the image: swapoff, then "
        "stop the\n"
        "server. What earlier devices of that name left at their stores goes, too, also when there "
        "is "
        "no image\n"
        "any more. --local leaves alone what stores hold (for one that is gone for good).\n"
        "shmid:N means an orphan that `farswap list` shows.\n",
    .examples = "  farswap destroy swap0\n"
                "  farswap destroy shmid:32769\n",
    .run = run,
};
