/*
 * list.c: farswap list. One line a device; orphans (images whose file is gone) as well.
 */
#include <stdio.h>

#include "client/cli/cli.h"
#include "common/parse.h"

static int line(const struct fsw_record *record, int orphan, void *opaque)
{
    int *count = opaque;
    struct fsw_image image;
    struct fsw_error err = {""};
    uint64_t stats[FSW_STAT_COUNT];
    char size[FSW_SIZE_TEXT], used[FSW_SIZE_TEXT], limit[FSW_SIZE_TEXT], stored[FSW_SIZE_TEXT];

    if ((*count)++ == 0)
        printf("%-16s %10s %10s %10s %10s  %-8s %s\n", "NAME", "SIZE", "STORED", "RAM", "MEMORY",
               "STATE", "OVERFLOW");
    if (fsw_registry_attach(record, 0, &image, &err) < 0) {
        printf("%-16s %s\n", record->name, err.text);
        return 0;
    }
    fsw_image_stats(&image, stats);
    printf("%-16s %10s %10s %10s %10s  %-8s %s\n", record->name,
           fsw_format_size(image.super->size, size),
           fsw_format_size(stats[FSW_STAT_ORIG_DATA_SIZE], stored),
           fsw_format_size(stats[FSW_STAT_MEM_USED_TOTAL], used),
           fsw_format_size(stats[FSW_STAT_MEM_LIMIT], limit),
           orphan           ? "orphan"
           : record->served ? "served"
                            : "stopped",
           record->overflow[0] ? record->overflow : "-");
    if (orphan)
        printf("%-16s no file names it: `farswap destroy shmid:%d` removes it\n", "",
               record->shmid);
    fsw_image_detach(&image);
    return 0;
}

static int run(int argc, char **argv)
{
    struct fsw_error err = {""};
    int count = 0;

    if (argc > 1)
        return cli_usage(&cli_list, 0);
    return fsw_registry_list(line, &count, &err) < 0 ? cli_fail(&err) : CLI_OK;
}

const struct cli_command cli_list = {
    .name = "list",
    .arguments = "",
    .summary = "the devices of this host",
    .help =
        "STORED is what the pages would take uncompressed, RAM what they take, MEMORY the limit.\n"
        "STATE: served (a server holds the image), stopped, or orphan (an image without a name).\n",
    .examples = "  farswap list\n",
    .run = run,
};
