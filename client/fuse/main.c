/*
 * main.c: farswap-fuse: a device as a file, and its knobs as files beside it. What is asked for on
 * the command line; process.c serves, supervise.c keeps servers.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "client/fuse/hidden.h"
#include "client/fuse/process.h"
#include "client/fuse/say.h"
#include "client/fuse/supervise.h"
#include "common/parse.h"

#define USAGE 2

static void usage(FILE *to)
{
    fputs("usage: farswap-fuse [--supervise] MOUNTPOINT NAME [key=value...]\n"
          "Serves a farswap device as the file MOUNTPOINT/disk, in the foreground, until it is\n"
          "unmounted. For swap, put a loop device over it:\n\n"
          "    losetup --find --show --direct-io=on MOUNTPOINT/disk\n\n"
          "  --supervise  keep the mount while servers are killed and started again (Linux 6.9);\n"
          "               of a device that is served there already: watch over its server\n"
          "  --help, --version\n\n"
          "Parameters, as the plugin's; what the image of NAME knows need not be said again:\n",
          to);
    for (unsigned i = 0; i < fsw_param_count; i++) {
        const struct fsw_param_info *info = &fsw_param_table[i];
        fprintf(to, "  %s=%s\n      %s", info->name, info->value, info->meaning);
        if (info->default_text != NULL && info->default_text[0] != '\0')
            fprintf(to, " (default %s)", info->default_text);
        fputc('\n', to);
    }
}

/* "5,6,7" */
static int parse_fds(const char *text, struct fsw_mount *mount)
{
    char one[16];

    while (*text != '\0') {
        size_t length = strcspn(text, ",");
        uint64_t fd;
        if (length >= sizeof one || mount->count == FSW_FUSE_FDS_MAX)
            return -EINVAL;
        memcpy(one, text, length);
        one[length] = '\0';
        if (fsw_parse_u64(one, 0, INT32_MAX, &fd) < 0)
            return -EINVAL;
        mount->fds[mount->count++] = (int)fd;
        text += length + (text[length] == ',');
    }
    return mount->count > 0 ? 0 : -EINVAL;
}

/* NAME, then key=value. */
static int set_parameters(struct fsw_door *door, char **arguments, struct fsw_error *err)
{
    int r = 0;

    fsw_door_init(door);
    for (unsigned i = 0; r == 0 && arguments[i] != NULL; i++) {
        char *value = strchr(arguments[i], '=');
        if (value == NULL && i == 0) {
            r = fsw_door_set(door, "name", arguments[i], err);
        } else if (value == NULL) {
            r = fsw_error(err, -EINVAL, "%s: say key=value", arguments[i]);
        } else {
            char key[64];
            snprintf(key, sizeof key, "%.*s", (int)(value - arguments[i]), arguments[i]);
            r = fsw_door_set(door, key, value + 1, err);
        }
    }
    return r == 0 ? fsw_door_check(door, err) : r;
}

struct request {
    struct fsw_process process;
    int supervise, help, version, bad;
};

static void parse_options(struct request *request, int argc, char **argv)
{
    static const struct option options[] = {
        {"supervise", no_argument, NULL, 's'},     {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},       {"fuse-fds", required_argument, NULL, 'f'},
        {"control", required_argument, NULL, 'c'}, {NULL, 0, NULL, 0}};
    int option;
    uint64_t fd;

    while ((option = getopt_long(argc, argv, "+hV", options, NULL)) != -1) {
        if (option == 's') {
            request->supervise = 1;
        } else if (option == 'h') {
            request->help = 1;
        } else if (option == 'V') {
            request->version = 1;
        } else if (option == 'f') {
            request->process.inherited = 1;
            request->bad |= parse_fds(optarg, &request->process.mount) < 0;
        } else if (option == 'c') {
            request->bad |= fsw_parse_u64(optarg, 0, INT32_MAX, &fd) < 0;
            request->process.control = (int)fd;
        } else {
            request->bad = 1;
        }
    }
}

int main(int argc, char **argv)
{
    static struct request request = {.process = {.control = -1}};
    struct fsw_error err = {""};

    parse_options(&request, argc, argv);
    if (request.help) {
        usage(stdout);
        return 0;
    }
    if (request.version) {
        printf("farswap-fuse %s\n", FSW_VERSION);
        return 0;
    }
    if (request.bad || argc - optind < 2) {
        usage(stderr);
        return USAGE;
    }
    request.process.mountpoint = argv[optind];
    if (set_parameters(&request.process.door, argv + optind + 1, &err) < 0 ||
        (!request.process.inherited &&
         fsw_hidden_check(argv[optind], &request.process.door.params, &err) < 0)) {
        fsw_control_say(request.process.control, "failed %s", err.text);
        fsw_say("%s", err.text);
        return 1;
    }
    if (request.supervise)
        return fsw_supervise(request.process.door.params.name, (const char *const *)argv + optind);
    return fsw_process_run(&request.process);
}
