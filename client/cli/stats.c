/*
 * stats.c: farswap stats. All counters of a device as "name value" lines, read from its image: the
 * server is not asked, and need not run.
 */
#include <stdio.h>
#include <string.h>

#include "client/cli/cli.h"
#include "core/pool/pool.h"

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

/* As zsmalloc's debugfs file `classes`. */
static void print_classes(const struct fsw_image *image)
{
    const struct fsw_class_table *table = fsw_class_table();

    printf("class  size  objects  used_bytes  zspages  frames  freeable  slots_per_zspage\n");
    for (unsigned i = 1; i < table->count; i++) {
        const struct fsw_class_stats *stats = &image->class_stats[i];
        unsigned objects = atomic_load(&stats->objects);
        if (objects == 0)
            continue;
        printf("%5u %5u %8u %11llu %8u %7u %9u %17u\n", i, table->shape[i].units * FSW_UNIT,
               objects, (unsigned long long)objects * table->shape[i].units * FSW_UNIT,
               atomic_load(&stats->zspages), atomic_load(&stats->frames),
               fsw_pool_freeable(image, i), table->shape[i].slots);
    }
}

static int run(int argc, char **argv)
{
    struct fsw_error err = {""};
    struct fsw_record record;
    struct fsw_image image;
    uint64_t values[FSW_STAT_COUNT];
    int orphan, explain = cli_take_option(&argc, argv, "--explain");
    int classes = cli_take_option(&argc, argv, "--classes");

    if (argc > 2 || explain + classes > 1 || (argc > 1 && argv[1][0] == '-'))
        return cli_usage(&cli_stats, 0);
    if (cli_find(argc > 1 ? argv[1] : NULL, &record, &orphan, &err) < 0 ||
        fsw_registry_attach(&record, 0, &image, &err) < 0)
        return cli_fail(&err);
    fsw_image_stats(&image, values);
    if (classes)
        print_classes(&image);
    else
        print(values, explain);
    fsw_image_detach(&image);
    return CLI_OK;
}

const struct cli_command cli_stats = {
    .name = "stats",
    .arguments = "[--explain|--classes] [NAME]",
    .summary = "all counters of a device",
    .help = "One \"name value\" line each, in bytes, pages or ns; with --explain also what each "
            "means.\n"
            "NAME may be left out where there is only one device.\n",
    .examples = "  farswap stats swap0 | grep ^pages_\n"
                "  farswap stats --explain\n"
                "  farswap stats --classes swap0\n",
    .run = run,
};
