/*
 * options.c: farswap-attach's command line.
 */
#include "client/attach/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/parse.h"

#define TIMEOUT_DEFAULT 3
#define TIMEOUT_MAX 60
#define DEAD_MIN 60
#define DEAD_MAX 315360000ull /* ten years; the kernel multiplies it by its ticks a second */

enum {
    DEVICE = 256,
    TIMEOUT,
    DEAD,
    SERVER,
    CONNECT,
    EXPORT,
    STATUS,
    DETACH,
    UPGRADE,
    FORCE,
    HELP,
    VERSION
};

static const struct option table[] = {
    {"device", required_argument, NULL, DEVICE},
    {"timeout", required_argument, NULL, TIMEOUT},
    {"dead-timeout", required_argument, NULL, DEAD},
    {"server", required_argument, NULL, SERVER},
    {"connect", required_argument, NULL, CONNECT},
    {"export", required_argument, NULL, EXPORT},
    {"status", required_argument, NULL, STATUS},
    {"detach", required_argument, NULL, DETACH},
    {"upgrade", required_argument, NULL, UPGRADE},
    {"force", no_argument, NULL, FORCE},
    {"help", no_argument, NULL, HELP},
    {"version", no_argument, NULL, VERSION},
    {NULL, 0, NULL, 0},
};

static const char usage[] =
    "usage: farswap-attach [OPTIONS] NAME key=value...     serve a device, attach it, keep it "
    "alive\n"
    "       farswap-attach [OPTIONS] --connect ADDR:PORT NAME    one that is served on another "
    "host\n"
    "       farswap-attach --status NAME\n"
    "       farswap-attach --detach NAME [--force]\n"
    "       farswap-attach --upgrade NAME [--server PATH]\n"
    "\n"
    "  --device DEVICE        /dev/nbdN to take                   (default: a free one)\n"
    "  --timeout SECONDS      of a request, 1 to 60               (default 3)\n"
    "  --dead-timeout SECONDS that requests wait for a server     (default ten years)\n"
    "  --server PATH          of farswap-nbd                      (default: beside this program)\n"
    "  --connect ADDR:PORT    where farswap-nbd listens on another host\n"
    "  --export NAME          the export's name there             (default NAME)\n"
    "  --status NAME          how the device is\n"
    "  --detach NAME          take it from the kernel, end its server; the image stays\n"
    "  --force                with --detach: although it is in use\n"
    "  --upgrade NAME         change the server's program under load\n"
    "  --help\n"
    "  --version\n"
    "\n"
    "Keys and values are those of `farswap-nbd --help`.\n";

static int read_device(struct fsw_attach_options *options, const char *text, struct fsw_error *err)
{
    int end = 0;

    if (sscanf(text, "/dev/nbd%9d%n", &options->index, &end) == 1 && text[end] == '\0' &&
        options->index >= 0)
        return 0;
    return fsw_error(err, -EINVAL, "--device %s: say /dev/nbdN", text);
}

static int read_seconds(const char *option, const char *text, uint64_t least, uint64_t most,
                        uint64_t *ret_value, struct fsw_error *err)
{
    if (fsw_parse_u64(text, least, most, ret_value) == 0)
        return 0;
    return fsw_error(err, -EINVAL, "--%s %s: say %llu to %llu seconds", option, text,
                     (unsigned long long)least, (unsigned long long)most);
}

/* Where the program is may not depend on the folder we are in: servers are started for as long as
 * we live. */
static int read_server(struct fsw_attach_options *options, const char *path, struct fsw_error *err)
{
    char real[PATH_MAX]; /* which realpath fills in part when it fails */

    if (realpath(path, real) == NULL || access(real, X_OK) < 0)
        return fsw_error(err, -EINVAL, "--server %s: %s", path, strerror(errno));
    strcpy(options->server, real);
    return 0;
}

static int take(struct fsw_attach_options *options, int option, struct fsw_error *err)
{
    switch (option) {
    case DEVICE:
        return read_device(options, optarg, err);
    case TIMEOUT:
        return read_seconds("timeout", optarg, 1, TIMEOUT_MAX, &options->timeout, err);
    case DEAD:
        return read_seconds("dead-timeout", optarg, DEAD_MIN, DEAD_MAX, &options->dead_timeout,
                            err);
    case SERVER:
        return read_server(options, optarg, err);
    case CONNECT:
        options->connect = optarg;
        return 0;
    case EXPORT:
        options->export_name = optarg;
        return 0;
    case FORCE:
        options->force = 1;
        return 0;
    case STATUS:
    case DETACH:
    case UPGRADE:
        options->verb = option == STATUS   ? FSW_ATTACH_STATUS
                        : option == DETACH ? FSW_ATTACH_DETACH
                                           : FSW_ATTACH_UPGRADE;
        options->name = optarg;
        return 0;
    case HELP:
        fputs(usage, stdout);
        return 1;
    case VERSION:
        printf("farswap-attach %s\n", FSW_VERSION);
        return 1;
    default:
        return fsw_error(err, -EINVAL, "see farswap-attach --help");
    }
}

/* The name, in whichever place it stands, and the parameters of a run. */
static int take_rest(struct fsw_attach_options *options, int argc, char **argv,
                     struct fsw_error *err)
{
    int run = options->verb == FSW_ATTACH_RUN;

    if (run && optind < argc)
        options->name = argv[optind++];
    if (options->name == NULL)
        return fsw_error(err, -EINVAL, "which device? see farswap-attach --help");
    if (strncmp(options->name, "name=", 5) == 0)
        options->name += 5;
    if (!fsw_name_valid(options->name))
        return fsw_error(err, -EINVAL,
                         "%s is not a device name: 1 to %d of A-Z a-z 0-9 . _ - are allowed, the "
                         "first not . or -",
                         options->name, FSW_NAME_MAX);
    options->params = argv + optind;
    options->param_count = (unsigned)(argc - optind);
    if (options->param_count > 0 && (!run || options->connect != NULL))
        return fsw_error(err, -EINVAL, "%s: parameters are for the server that a run starts",
                         argv[optind]);
    for (unsigned i = 0; i < options->param_count; i++)
        if (strchr(options->params[i], '=') == NULL)
            return fsw_error(err, -EINVAL, "%s: say key=value", options->params[i]);
    return 0;
}

/* Beside this program, or where a build has it. */
static void find_server(struct fsw_attach_options *options)
{
    static const char *const places[] = {"farswap-nbd", "../nbd/farswap-nbd"};
    char self[PATH_MAX], path[PATH_MAX + 32];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL)
        slash[1] = '\0';
    for (unsigned i = 0; options->server[0] == '\0' && i < sizeof places / sizeof places[0]; i++) {
        snprintf(path, sizeof path, "%s%s", self, places[i]);
        read_server(options, path, NULL);
    }
}

int fsw_attach_options_read(struct fsw_attach_options *options, int argc, char **argv,
                            struct fsw_error *err)
{
    int option, r = 0;

    memset(options, 0, sizeof *options);
    options->index = -1;
    options->timeout = TIMEOUT_DEFAULT;
    options->dead_timeout = DEAD_MAX;
    options->called = argv[0];
    while (r == 0 && (option = getopt_long(argc, argv, "h", table, NULL)) != -1)
        r = take(options, option == 'h' ? HELP : option, err);
    if (r != 0)
        return r;
    r = take_rest(options, argc, argv, err);
    if (r < 0)
        return r;
    if (options->export_name == NULL)
        options->export_name = options->name;
    if (options->verb == FSW_ATTACH_RUN && options->connect == NULL)
        find_server(options);
    if (options->verb == FSW_ATTACH_RUN && options->connect == NULL && options->server[0] == '\0')
        return fsw_error(err, -EINVAL,
                         "farswap-nbd is not beside farswap-attach: say --server PATH");
    return 0;
}
