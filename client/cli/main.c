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

/* As it was called, to say what of it was wrong. */
static char **words;

static int has_option(const struct cli_command *command, const char *option)
{
    const char *at = command->arguments;

    while ((at = strstr(at, option)) != NULL) {
        at += strlen(option);
        if (strchr(" |]", *at) != NULL)
            return 1;
    }
    return 0;
}

/* The first option that the command does not have; NULL: each is one. */
static const char *unknown_option(const struct cli_command *command)
{
    for (unsigned i = 1; words != NULL && words[i] != NULL; i++)
        if (words[i][0] == '-' && !has_option(command, words[i]))
            return words[i];
    return NULL;
}

int cli_usage(const struct cli_command *command, int asked)
{
    const char *wrong = asked ? NULL : unknown_option(command);

    if (wrong != NULL)
        fprintf(stderr, "farswap: %s has no option %s\n", command->name, wrong);
    else if (!asked)
        fprintf(stderr, "farswap: this is not how %s is called\n", command->name);
    fprintf(asked ? stdout : stderr, "usage: farswap %s%s%s\n", command->name,
            command->arguments[0] != '\0' ? " " : "", command->arguments);
    if (asked)
        printf("%s\n\n%s\nExamples:\n%s", command->summary, command->help, command->examples);
    else
        fprintf(stderr, "`farswap %s --help` says more.\n", command->name);
    return asked ? CLI_OK : CLI_USAGE;
}

int cli_take_option(int *argc, char **argv, const char *option)
{
    for (int i = 1; i < *argc; i++)
        if (strcmp(argv[i], option) == 0) {
            memmove(argv + i, argv + i + 1, (size_t)(*argc - i) * sizeof *argv); /* the NULL, too */
            (*argc)--;
            return 1;
        }
    return 0;
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
            "Swaps on farswap devices, compressed swap in shared memory; looks at them, steers and "
            "removes them.\n\n");
    for (unsigned i = 0; i < COMMANDS; i++)
        fprintf(to, "  farswap %-8s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(
        to,
        "\n`farswap COMMAND --help` says more, with examples. Exit codes: 0 done, 1 it could not "
        "be done,\n2 the call was wrong, 3 (of down) memory is missing, and everything stays "
        "up.\n");
    return to == stdout ? CLI_OK : CLI_USAGE;
}

static int is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static int wants_help(char **argv)
{
    for (unsigned i = 0; argv[i] != NULL; i++)
        if (is_help(argv[i]))
            return 1;
    return 0;
}

static const struct cli_command *find(const char *name)
{
    for (unsigned i = 0; i < COMMANDS; i++)
        if (strcmp(name, commands[i]->name) == 0)
            return commands[i];
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return help(stderr);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("farswap %s\n", FSW_VERSION);
        return CLI_OK;
    }
    int asked = is_help(argv[1]) || strcmp(argv[1], "help") == 0;
    if (asked && argc == 2)
        return help(stdout);
    words = argv + 1 + asked;
    const struct cli_command *command = find(words[0]);
    if (command != NULL)
        return asked || wants_help(words + 1) ? cli_usage(command, 1)
                                              : command->run(argc - 1, words);
    fprintf(stderr, "farswap: there is no command %s: `farswap --help` lists all\n", words[0]);
    return CLI_USAGE;
}
