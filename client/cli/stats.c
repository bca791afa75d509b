/*
 * stats.c: farswap stats. All counters of a device as "name value" lines, read from its image: the
 * server is not asked, and need not run.
 */
#include <stdio.h>
#include <string.h>

#include "client/cli/cli.h"

static void print(const uint64_t values[FSW_STAT_COUNT], int explain)
{
    for (unsigned i = 0; i < FSW_STAT_COUNT; i++) {
        const struct fsw_stat_info *info = &fsw_stat_table[i];
        if (explain)
            printf("# %s: %s (%s, %s)\n", info->name, info->meaning,
                   info->kind == FSW_STAT_COUNTER ? "counter" : "gauge", info->unit);
        printf("%s %llu\n", info->name, (unsigned long long)values[i]);
    }
}

static int run(int argc, char **argv)
{
    struct fsw_error err = {""};
    struct fsw_record record;
    struct fsw_image image;
    uint64_t values[FSW_STAT_COUNT];
    int orphan, explain = argc > 1 && strcmp(argv[1], "--explain") == 0;

    argc -= explain;
    argv += explain;
    if (argc > 2 || (argc > 1 && argv[1][0] == '-'))
        return cli_usage(&cli_stats, 0);
    if (cli_find(argc > 1 ? argv[1] : NULL, &record, &orphan, &err) < 0 ||
        fsw_image_attach(&image, record.shmid, 0, &err) < 0)
        return cli_fail(&err);
    fsw_image_stats(&image, values);
    fsw_image_detach(&image);
    print(values, explain);
    return CLI_OK;
}

const struct cli_command cli_stats = {
    .name = "stats",
    .arguments = "[--explain] [NAME]",
    .summary = "all counters of a device",
    .help = "One \"name value\" line each, in bytes, pages or ns; with --explain also what each "
            "means.\n"
            "NAME may be left out where there is only one device.\n",
    .run = run,
};
