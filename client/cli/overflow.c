/*
 * overflow.c: farswap overflow. Asks the server, by a word in the image, that pages leave for the
 * store now, and waits until they have: for as long as that takes and a server is there.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/progress.h"
#include "common/clock.h"
#include "common/parse.h"
#include "core/steer.h"

#define LOOK_NS (200 * FSW_NS_PER_MS)
#define IDLE_S 600u

struct request {
    const char *name;
    uint32_t seconds;
    int huge;
};

static int parse(struct request *request, char **argv)
{
    int idle = 0, all = 0;
    uint64_t seconds = IDLE_S;

    for (int i = 1; argv[i] != NULL; i++) {
        if (strcmp(argv[i], "--all") == 0)
            all = 1;
        else if (strcmp(argv[i], "--huge") == 0)
            request->huge = 1;
        else if (strcmp(argv[i], "--idle") == 0 && argv[i + 1] != NULL && ++idle)
            idle += fsw_parse_u64(argv[++i], 0, FSW_OVERFLOW_HUGE - 1, &seconds) < 0 ? 2 : 0;
        else if (argv[i][0] == '-' || request->name != NULL)
            return -EINVAL;
        else
            request->name = argv[i];
    }
    if (idle > 1 || all + request->huge > 1 || (all && idle))
        return -EINVAL;
    request->seconds = all || (request->huge && !idle) ? 0 : (uint32_t)seconds;
    return 0;
}

static int is_served(const char *name)
{
    struct fsw_record record;
    int orphan;

    return cli_find(name, &record, &orphan, NULL) == 0 && record.served;
}

/* 0, or what ended it: -ESRCH (the server died), -EIO, -ENOSPC, -EDQUOT. */
static int await(const struct fsw_image *image, const char *name, uint64_t asked,
                 _Atomic uint64_t *left, struct fsw_overflowed *ret_went)
{
    uint64_t before = fsw_stat_get(image, FSW_STAT_OVERFLOW_PAGES);
    int r;

    while ((r = fsw_image_await_overflow(image, asked, LOOK_NS, ret_went)) == -ETIMEDOUT) {
        atomic_store(left, fsw_stat_get(image, FSW_STAT_OVERFLOW_PAGES) - before);
        if (!is_served(name))
            return -ESRCH;
    }
    return r;
}

static int explain(int r, const char *name, const struct fsw_overflowed *went,
                   struct fsw_error *err)
{
    char size[FSW_SIZE_TEXT];

    fsw_format_size(went->pages * FSW_PAGE_SIZE, size);
    if (r == -ESRCH)
        return fsw_error(err, r, "the server of %s is gone: the next one will do it", name);
    if (r == -ENOSPC)
        return fsw_error(err, r,
                         "%s of %s left, then its store was full: the rest stays in RAM. Give the "
                         "donor more memory",
                         size, name);
    if (r == -EDQUOT)
        return fsw_error(err, r,
                         "%s of %s left, then overflow_limit= was used up: the rest stays in RAM. "
                         "`farswap status %s` tells when more may leave",
                         size, name, name);
    return fsw_error(
        err, r,
        "%s of %s left, then its store did not answer, or would not take it: the rest stays in "
        "RAM. `farswap doctor %s` says what is wrong with it",
        size, name, name);
}

static void say(const struct request *request, const struct fsw_record *record, double seconds,
                const struct fsw_overflowed *went)
{
    char pages[FSW_SIZE_TEXT], bytes[FSW_SIZE_TEXT];

    printf("%s: %s left for the store, as %s there (%.2f s)\n", record->name,
           fsw_format_size(went->pages * FSW_PAGE_SIZE, pages), fsw_format_size(went->bytes, bytes),
           seconds);
    if (went->pages == 0 && request->seconds > 0)
        printf("%s: no page%s in RAM is known to be idle for %u s\n", record->name,
               request->huge ? " that does not compress" : "", request->seconds);
}

static int overflow(const struct request *request, struct fsw_error *err)
{
    uint32_t wanted = request->seconds | (request->huge ? FSW_OVERFLOW_HUGE : 0);
    uint64_t began = fsw_now_ns();
    struct fsw_overflowed went = {0};
    struct progress progress;
    struct fsw_record record;
    struct fsw_image image;
    _Atomic uint64_t left = 0;

    int r = cli_open_served(request->name, &image, &record, err);
    if (r < 0)
        return r;
    uint64_t asked = fsw_image_ask_overflow(&image, wanted);
    if (asked == 0) {
        fsw_image_detach(&image);
        return fsw_error(
            err, -ENOTSUP,
            "%s has no store: its pages can't leave. overflow= gives it one when it is "
            "made",
            record.name);
    }
    /* How many are idle nobody knows before they were looked at. */
    uint64_t pool = fsw_stat_get(&image, FSW_STAT_PAGES_POOL);
    progress_begin(&progress, &left, wanted == 0 ? pool : 0, "%s: pages leave", record.name);
    r = await(&image, request->name, asked, &left, &went);
    progress_end(&progress);
    fsw_image_detach(&image);
    if (r < 0)
        return explain(r, record.name, &went, err);
    say(request, &record, (double)(fsw_now_ns() - began) / FSW_NS_PER_S, &went);
    return 0;
}

static int run(int argc, char **argv)
{
    struct request request = {NULL};
    struct fsw_error err = {""};

    if (parse(&request, argv) < 0)
        return cli_usage(&cli_overflow, 0);
    return overflow(&request, &err) < 0 ? cli_fail(&err) : CLI_OK;
}

const struct cli_command cli_overflow = {
    .name = "overflow",
    .arguments = "[--all] [--huge] [--idle SECONDS] [NAME]",
    .summary = "pushes pages out to the store now",
    .help =
        "Pages leave by themselves when memory= is used up; this asks for it earlier, as zram's "
        "writeback\n"
        "does, so that there is room when it is needed. Waits until they have left.\n\n"
        "  --idle SECONDS  pages that nobody used for so long; 600 by default. While the device "
        "is used\n"
        "                  it is known to a minute, and for two hours at most: what may be younger "
        "stays\n"
        "  --huge          pages that do not compress (with --idle: of these, idle ones)\n"
        "  --all           every page\n",
    .examples = "  farswap overflow swap0\n"
                "  farswap overflow --idle 3600 swap0\n"
                "  farswap overflow --huge --idle 60 swap0\n",
    .run = run,
};
