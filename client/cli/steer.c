/*
 * steer.c: farswap compact and farswap set. They ask the server by way of words in the image (who
 * may map it may ask), and wait for what it does.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/progress.h"
#include "common/clock.h"
#include "common/parse.h"
#include "core/steer.h"

#define ANSWER_NS (60 * FSW_NS_PER_S)
#define LOOK_NS (200 * FSW_NS_PER_MS)
#define LOST_NS (30 * FSW_NS_PER_S)

int cli_open_served(const char *name, struct fsw_image *ret_image, struct fsw_record *ret_record,
                    struct fsw_error *err)
{
    int orphan, r = cli_find(name, ret_record, &orphan, err);

    if (r < 0)
        return r;
    if (!ret_record->served)
        return fsw_error(err, -ESRCH, "no server works on %s: there is nobody to ask",
                         ret_record->name);
    return fsw_registry_attach(ret_record, 1, ret_image, err);
}

/* ---- compact ---- */

static uint64_t pool_bytes(const struct fsw_image *image)
{
    return fsw_stat_get(image, FSW_STAT_POOL_FRAMES) * FSW_FRAME_SIZE;
}

/* 0; -ETIMEDOUT, or -ESRCH: its server died. */
static int ask_and_wait(const struct fsw_image *image, const char *name)
{
    uint64_t asked = fsw_image_ask_compact(image), deadline = fsw_now_ns() + ANSWER_NS;
    struct fsw_record record;
    int orphan, r;

    while ((r = fsw_image_await_compact(image, asked, LOOK_NS)) < 0 && fsw_now_ns() < deadline)
        if (cli_find(name, &record, &orphan, NULL) < 0 || !record.served)
            return -ESRCH;
    return r;
}

static int compact(int argc, char **argv)
{
    struct fsw_error err = {""};
    struct fsw_record record;
    struct fsw_image image;
    char before[FSW_SIZE_TEXT], after[FSW_SIZE_TEXT];
    struct progress progress;

    if (argc > 2 || (argc > 1 && argv[1][0] == '-'))
        return cli_usage(&cli_compact, 0);
    if (cli_open_served(argc > 1 ? argv[1] : NULL, &image, &record, &err) < 0)
        return cli_fail(&err);
    fsw_format_size(pool_bytes(&image), before);
    progress_begin(&progress, NULL, 0, "%s: packing %s", record.name, before);
    int r = ask_and_wait(&image, argc > 1 ? argv[1] : NULL);
    progress_end(&progress);
    fsw_format_size(pool_bytes(&image), after);
    fsw_image_detach(&image);
    if (r < 0) {
        fsw_error(&err, r,
                  r == -ESRCH ? "the server of %s is gone: the next one will do it"
                              : "the server of %s did not answer within a minute: it goes on by "
                                "itself",
                  record.name);
        return cli_fail(&err);
    }
    printf("%s: pool %s, was %s\n", record.name, after, before);
    return CLI_OK;
}

const struct cli_command cli_compact = {
    .name = "compact",
    .arguments = "[NAME]",
    .summary = "packs the pool and gives memory back",
    .help = "The server compacts by itself when a fortieth of the pool is holes; this asks for "
            "all that can\n"
            "be had, and waits. Requests go on meanwhile.\n",
    .examples = "  farswap compact swap0\n",
    .run = compact,
};

/* ---- set ---- */

/* Whether a store is lost is known once the server has looked at it. */
static int await_lost(const struct fsw_image *image, struct fsw_error *err)
{
    switch (fsw_image_await_lost(image, LOST_NS)) {
    case 0:
        return 0;
    case -EEXIST:
        return fsw_error(err, -EEXIST,
                         "that store answers and has lost nothing: it is left alone. Stop it first "
                         "if it is to go");
    default:
        return fsw_error(err, -ETIMEDOUT,
                         "the server of %s has not looked yet: it will do it when "
                         "it can",
                         image->super->name);
    }
}

static int set_one(const struct fsw_image *image, char *assignment, struct fsw_error *err)
{
    char *value = strchr(assignment, '=');

    if (value == NULL)
        return fsw_error(err, -EINVAL, "%s: say memory=SIZE, or another KEY=VALUE", assignment);
    *value++ = '\0';
    int r = fsw_image_set(image, assignment, value, err);
    return r == 0 && strcmp(assignment, "overflow-lost") == 0 ? await_lost(image, err) : r;
}

static int set(int argc, char **argv)
{
    struct fsw_error err = {""};
    struct fsw_record record;
    struct fsw_image image;
    int r = 0;

    if (argc < 3 || argv[1][0] == '-')
        return cli_usage(&cli_set, 0);
    if (cli_open_served(argv[1], &image, &record, &err) < 0)
        return cli_fail(&err);
    int done = 2;
    while (done < argc && (r = set_one(&image, argv[done], &err)) == 0)
        done++;
    fsw_image_detach(&image);
    if (r < 0 && done > 2)
        fprintf(stderr, "farswap: what stands before %s is set, the rest is not\n", argv[done]);
    return r < 0 ? cli_fail(&err) : CLI_OK;
}

const struct cli_command cli_set = {
    .name = "set",
    .arguments = "NAME KEY=VALUE...",
    .summary = "changes a device while it runs",
    .help =
        "memory=  the limit of what the image may take. Below what is in use only with a store: "
        "pages\n"
        "         overflow until it fits.\n"
        "codec=   lz4, lz4:ACCELERATION, zstd, zstd:LEVEL or raw, for pages written from now on.\n"
        "prefetch=       auto, off or SIZE: what a read asks the store for besides its page.\n"
        "fetch_timeout=  seconds that a read waits for the store before it fails; 0: for ever.\n"
        "watermarks=     auto or START:STOP, percent of memory= in use at which overflow starts "
        "and "
        "stops.\n"
        "write_wait=     seconds that a write waits for room when pool and store are full.\n"
        "read_age=       young, half or keep: what a read does to a page's age.\n"
        "huge=           age, first or store: pages that don't compress leave by age, before "
        "others, "
        "or\n"
        "                as soon as they fill a segment.\n"
        "overflow_limit= off or SIZE: the most bytes that may leave for the store in 24 hours.\n"
        "overflow-lost=  1 or 2: that store of overflow= is gone for good. Pages that only it had "
        "are lost\n"
        "                (EIO), and their readers need not wait any more.\n"
        "The server follows within a tenth of a second.\n",
    .examples = "  farswap set swap0 memory=2G\n"
                "  farswap set swap0 codec=zstd:3 memory=25%\n"
                "  farswap set swap0 watermarks=80:70\n",
    .run = set,
};
