/*
 * main.c: farswap, the command. Which commands there are, and what they have in common.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "common/parse.h"

static const struct cli_command *const commands[] = {
    &cli_up,    &cli_down,    &cli_status,   &cli_top, &cli_list,    &cli_stats,
    &cli_check, &cli_compact, &cli_overflow, &cli_set, &cli_destroy, &cli_doctor};
#define COMMANDS (sizeof commands / sizeof commands[0])

int cli_colours(void)
{
    return isatty(STDOUT_FILENO) && getenv("NO_COLOR") == NULL;
}

int cli_fail(const struct fsw_error *err)
{
    fprintf(stderr, "farswap: %s\n", err->text);
    return CLI_FAILED;
}

int cli_usage(const struct cli_command *command, int asked)
{
    FILE *to = asked ? stdout : stderr;

    fprintf(to, "usage: farswap %s %s\n%s\n\n%s\nExamples:\n%s", command->name, command->arguments,
            command->summary, command->help, command->examples);
    return asked ? CLI_OK : CLI_USAGE;
}

struct search {
    const char *name;
    int shmid; /* of "shmid:N", or -1 */
    unsigned found;
    struct fsw_record record;
    int orphan;
};

static int match(const struct fsw_record *record, int orphan, void *opaque)
{
    struct search *search = opaque;
    int hit = search->shmid >= 0
                  ? record->shmid == search->shmid
                  : !orphan && (search->name == NULL || strcmp(search->name, record->name) == 0);

    if (hit) {
        search->found++;
        search->record = *record;
        search->orphan = orphan;
    }
    return 0;
}

int cli_find(const char *name, struct fsw_record *ret_record, int *ret_orphan,
             struct fsw_error *err)
{
    struct search search = {.name = name, .shmid = -1};
    uint64_t shmid;

    if (name != NULL && strncmp(name, "shmid:", 6) == 0) {
        if (fsw_parse_u64(name + 6, 0, INT32_MAX, &shmid) < 0)
            return fsw_error(err, -EINVAL,
                             "%s: a shared memory id is a number (`farswap list` shows it)", name);
        search.shmid = (int)shmid;
    } else if (name != NULL && !fsw_name_valid(name)) {
        return fsw_error(err, -EINVAL,
                         "%s is not a device name: 1 to %d of A-Z a-z 0-9 . _ - are allowed, the "
                         "first not . or -",
                         name, FSW_NAME_MAX);
    }
    int r = fsw_registry_list(match, &search, err);
    if (r < 0)
        return r;
    if (search.found == 0)
        return name == NULL ? fsw_error(err, -ENOENT, "there is no device on this host")
                            : fsw_error(err, -ENOENT,
                                        "there is no device %s (`farswap list` shows all)", name);
    if (search.found > 1)
        return fsw_error(err, -EINVAL,
                         "there are %u devices: say which (`farswap list` shows them)",
                         search.found);
    *ret_record = search.record;
    *ret_orphan = search.orphan;
    return 0;
}

static int help(FILE *to)
{
    fprintf(to,
            "usage: farswap COMMAND [ARGUMENT...]\n"
            "Looks at, steers and removes farswap devices: compressed swap in shared memory.\n\n");
    for (unsigned i = 0; i < COMMANDS; i++)
        fprintf(to, "  farswap %-8s %-32s %s\n", commands[i]->name, commands[i]->arguments,
                commands[i]->summary);
    fprintf(to, "\n`farswap COMMAND --help` says more.\n");
    return to == stdout ? CLI_OK : CLI_USAGE;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return help(stderr);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return help(stdout);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("farswap %s\n", FSW_VERSION);
        return CLI_OK;
    }
    for (unsigned i = 0; i < COMMANDS; i++)
        if (strcmp(argv[1], commands[i]->name) == 0) {
            if (argc > 2 && (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0))
                return cli_usage(commands[i], 1);
            return commands[i]->run(argc - 1, argv + 1);
        }
    fprintf(stderr, "farswap: there is no command %s\n\n", argv[1]);
    return help(stderr);
}
