/*
 * check.c: farswap check. Walks a device's image and proves its invariants (core/check.c).
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "client/cli/progress.h"
#include "core/check.h"

#define LINES_MAX 20u

static void problem(const char *line, void *opaque)
{
    unsigned *lines = opaque;

    if ((*lines)++ < LINES_MAX)
        printf("%s\n", line);
}

static int summarise(const struct fsw_record *record, const struct fsw_check_report *report,
                     unsigned lines)
{
    if (lines > LINES_MAX)
        printf("... and %u more\n", lines - LINES_MAX);
    printf("%s: %llu pages in the pool, %llu same-filled, %llu in the store; %llu proven by "
           "checksum\n",
           record->name, (unsigned long long)report->pages_pool,
           (unsigned long long)report->pages_same, (unsigned long long)report->pages_store,
           (unsigned long long)report->opened);
    if (record->served)
        printf("%s: is being served, so only its pages were proven, not the layout%s\n",
               record->name,
               report->changed ? "; pages that changed meanwhile were passed over" : "");
    if (report->leftovers > 0)
        printf("%s: %llu leftovers of a server that was killed, harmless\n", record->name,
               (unsigned long long)report->leftovers);
    if (report->problems == 0)
        printf("%s: no problem found\n", record->name);
    else
        printf("%s: %llu problems\n", record->name, (unsigned long long)report->problems);
    return report->problems == 0 ? CLI_OK : CLI_FAILED;
}

static int run(int argc, char **argv)
{
    struct fsw_error err = {""};
    struct fsw_record record;
    struct fsw_check_report report = {0};
    struct progress progress;
    struct fsw_image image;
    unsigned lines = 0;
    int orphan, lock = -1;

    if (argc > 2 || (argc > 1 && argv[1][0] == '-'))
        return cli_usage(&cli_check, 0);
    if (cli_find(argc > 1 ? argv[1] : NULL, &record, &orphan, &err) < 0)
        return cli_fail(&err);
    /* Nobody may start to serve it while its layout is being proven. */
    if (!record.served && !orphan && fsw_registry_lock(record.name, &lock, &err) < 0)
        record.served = 1;
    if (fsw_registry_attach(&record, 0, &image, &err) < 0)
        return cli_fail(&err);
    progress_begin(&progress, &report.leaves, image.super->leaves, "%s: being checked",
                   record.name);
    int r = fsw_image_check(&image, record.served, problem, &lines, &report);
    progress_end(&progress);
    if (r < 0)
        return cli_fail(&(struct fsw_error){"no memory for the check"});
    fsw_image_detach(&image);
    if (lock >= 0)
        close(lock);
    return summarise(&record, &report, lines);
}

const struct cli_command cli_check = {
    .name = "check",
    .arguments = "[NAME]",
    .summary = "proves that a device's image is whole",
    .help =
        "Every page in the pool is decompressed and its checksum compared; when no server works on "
        "the\n"
        "image its whole layout is proven as well. Pages in the store are counted, not fetched.\n"
        "Exit code 1 if a problem was found.\n",
    .examples = "  farswap check swap0\n"
                "  farswap check swap0 || echo damaged\n",
    .run = run,
};
