/*
 * up.c: farswap up. From a name to swap that is on:
 *
 *      checks ─ door (server, block device) ─ mkswap ─ swapon
 *
 * Each step looks whether it was done before, so a call that failed or was killed is simply given
 * again. Nothing is undone on failure: what is up keeps its pages, and `down` takes it away.
 */
#include <errno.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/claim.h"
#include "client/cli/doctor.h"
#include "client/cli/doors.h"
#include "client/cli/progress.h"
#include "client/cli/swap.h"
#include "client/cli/view.h"
#include "common/parse.h"

struct request {
    const char *name;
    const struct door *door;
    int priority; /* -1: above all other swap */
    int asked;    /* something was said besides the name */
    struct config config;
};

void door_say(const char *device, const char *format, ...)
{
    va_list args;

    printf("%s%s: ", isatty(STDOUT_FILENO) ? PROGRESS_CLEAR : "", device);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

/* ---- what is asked for ---- */

static int take_option(struct request *request, char **argv, int *at, struct fsw_error *err)
{
    const char *option = argv[*at], *value = argv[*at + 1];
    uint64_t priority;

    if (strcmp(option, "--priority") == 0 && value != NULL) {
        if (fsw_parse_u64(value, 0, HOST_PRIORITY_MAX, &priority) < 0)
            return fsw_error(err, -EINVAL, "--priority %s: 0 to %d", value, HOST_PRIORITY_MAX);
        request->priority = (int)priority;
    } else if (strcmp(option, "--door") == 0 && value != NULL) {
        request->door = strcmp(value, "nbd") == 0    ? &door_nbd
                        : strcmp(value, "fuse") == 0 ? &door_fuse
                                                     : NULL;
        if (request->door == NULL)
            return fsw_error(err, -EINVAL, "--door %s: nbd or fuse", value);
    } else {
        return fsw_error(err, -EINVAL, "%s: see `farswap up --help`", option);
    }
    (*at)++;
    return 0;
}

/* The file first, so that what is said here is said last. */
static int parse(struct request *request, char **argv, struct fsw_error *err)
{
    int r = 0;

    for (int i = 1; r == 0 && argv[i] != NULL; i++) {
        request->asked |= i > 1;
        if (argv[i][0] == '-') {
            r = take_option(request, argv, &i, err);
        } else if (request->name == NULL) {
            request->name = argv[i];
            if (!fsw_name_valid(argv[i]))
                r = fsw_error(err, -EINVAL,
                              "%s is not a device name: 1 to %d of A-Z a-z 0-9 . _ - are allowed, "
                              "the first not . or -",
                              argv[i], FSW_NAME_MAX);
            else
                r = config_read(&request->config, argv[i], err);
        } else {
            r = config_add(&request->config, argv[i], err);
        }
    }
    if (r == 0 && request->name == NULL)
        r = fsw_error(err, -EINVAL, "up needs a device's name: see `farswap up --help`");
    return r;
}

/* ---- steps ---- */

static int check(struct request *request, int is_new, struct fsw_error *err)
{
    int r = config_check(&request->config, request->name, is_new, err);

    if (r == 0 && doctor_look_at_host(1) > 0)
        r = fsw_error(err, -EPERM, "this host can't swap to it: see the FAIL above");
    if (r == 0)
        door_say(request->name, "checks passed");
    return r;
}

static int stored(const struct fsw_record *record)
{
    struct view view;

    if (view_open(&view, record, 0, NULL) < 0)
        return 0;
    int pages = view.values[FSW_STAT_PAGES_STORED] > 0;
    view_close(&view);
    return pages;
}

static int put_swap(const struct request *request, const char *block, struct fsw_error *err)
{
    struct fsw_record record;
    struct host_swap swap;

    if (host_swap_on(block, &swap))
        return 0;
    int r = fsw_registry_read(request->name, -1, &record, err);
    if (r == 0)
        r = swap_make(block, stored(&record), err);
    if (r < 0)
        return r;
    door_say(request->name, "mkswap done");
    return swap_on(block, request->priority >= 0 ? request->priority : host_swap_priority(), err);
}

/* A crash that would lose it is said at every call. */
static void warn_of_survival(const char *name)
{
    struct fsw_record record;
    struct view view;

    if (fsw_registry_read(name, -1, &record, NULL) < 0 || view_open(&view, &record, 0, NULL) < 0)
        return;
    if (survival_is_bad(view.survival))
        door_say(name, "warning: %s", survival_text(view.survival));
    view_close(&view);
}

static int say_swap(const char *name, const char *block, uint64_t began, struct fsw_error *err)
{
    struct host_swap swap;
    char size[FSW_SIZE_TEXT];

    if (!host_swap_on(block, &swap))
        return fsw_error(err, -EIO, "swap on %s was turned off by somebody else", block);
    door_say(name, "swap is on: %s, %s, priority %d (%.2f s)", block,
             fsw_format_size(swap.size, size), swap.priority,
             (double)(fsw_now_ns() - began) / FSW_NS_PER_S);
    warn_of_survival(name);
    return 0;
}

/* It is looked after once more: its supervisor may have been killed. */
static int already(struct request *request, const struct host_swap *swap, struct fsw_error *err)
{
    char block[HOST_BLOCK];
    int r = strncmp(swap->path, "/dev/nbd", 8) == 0
                ? door_nbd.up(request->name, &request->config, block, err)
                : door_fuse_watch(request->name, err);

    if (r == 0) {
        door_say(request->name, "swap is on already: %s, priority %d", swap->path, swap->priority);
        if (request->asked)
            door_say(request->name,
                     "parameters and options are as they were: `farswap set` changes "
                     "some, `farswap down --keep` and `up` the priority and the door");
        warn_of_survival(request->name);
    }
    return r;
}

static int open_door(struct request *request, char block[HOST_BLOCK], struct fsw_error *err)
{
    struct progress progress;

    progress_begin(&progress, NULL, 0, "%s: the server starts", request->name);
    int r = request->door->up(request->name, &request->config, block, err);
    progress_end(&progress);
    return r;
}

static int bring_up(struct request *request, struct fsw_error *err)
{
    uint64_t began = fsw_now_ns();
    struct fsw_record record;
    struct host_swap swap;
    char block[HOST_BLOCK], mountpoint[512];

    int r = fsw_registry_read(request->name, -1, &record, err), is_new = r == -ENOENT;
    if (r < 0 && !is_new)
        return r;
    if (!is_new && host_swap_of(&record, &swap))
        return already(request, &swap, err);
    r = check(request, is_new && !host_mount_of(request->name, mountpoint), err);
    if (r == 0)
        r = open_door(request, block, err);
    if (r == 0)
        r = put_swap(request, block, err);
    return r < 0 ? r : say_swap(request->name, block, began, err);
}

/* ---- the command ---- */

static int up(struct request *request, struct fsw_error *err)
{
    if (!host_may(CAP_SYS_ADMIN))
        return fsw_error(err, -EPERM, "up needs root (CAP_SYS_ADMIN): it mounts and swaps");
    if (request->door == NULL)
        request->door = doctor_has_nbd() ? &door_nbd : &door_fuse;
    int claim = claim_take(request->name, err);
    if (claim < 0)
        return claim;
    int r = bring_up(request, err);
    claim_drop(request->name, claim);
    return r;
}

static int run(int argc, char **argv)
{
    struct request request = {.priority = -1};
    struct fsw_error err = {""};
    int r = parse(&request, argv, &err), status = CLI_USAGE;

    if (r < 0) {
        cli_fail(&err);
    } else if (up(&request, &err) < 0) {
        fprintf(stderr, "farswap: %s: %s\n", request.name, err.text);
        status = CLI_FAILED;
    } else {
        status = CLI_OK;
    }
    config_free(&request.config);
    return status;
}

const struct cli_command cli_up = {
    .name = "up",
    .arguments = "[--priority N] [--door nbd|fuse] NAME [key=value...]",
    .summary = "swap on a device: all steps from nothing to swapon",
    .help =
        "Checks the host, starts the server in the background, makes a block device, and swaps on "
        "it, with\n"
        "discard. Keys are those of the plugin (size, memory, codec, overflow, ...); they are "
        "taken "
        "from\n"
        "/etc/farswap/NAME.conf first, one key=value a line, and then from the command line. May "
        "be repeated:\n"
        "what is done already is not done again.\n\n"
        "  --priority N  of the swap, 0 to 32767; by default higher than that of any other\n"
        "  --door DOOR   nbd or fuse; by default nbd where the kernel has it\n",
    .examples = "  farswap up swap0 size=16G memory=4G\n"
                "  farswap up swap0 size=64G memory=4G overflow=resp://10.0.0.2:6390\n",
    .run = run,
};
