/*
 * options.c: getopt_long, then NAME and key=value.
 */
#include "client/nbd/options.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>

#include "client/nbd/listen.h"
#include "common/clock.h"
#include "common/parse.h"

#define TIMEOUT_DEFAULT_S 3
#define TIMEOUT_MAX_S 3600

static const struct option longopts[] = {
    {"unix", required_argument, NULL, 'u'},    {"listen", required_argument, NULL, 'l'},
    {"control", required_argument, NULL, 'c'}, {"wait", no_argument, NULL, 'w'},
    {"timeout", required_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},       {NULL, 0, NULL, 0},
};

void fsw_nbd_options_print_help(FILE *file)
{
    fputs("usage: farswap-nbd [OPTION]... NAME [KEY=VALUE]...\n"
          "Serves the device NAME to NBD clients: makes its image, or goes on with the one there "
          "is.\n\n"
          "  --unix PATH         listen on a Unix socket, for its owner alone\n"
          "  --listen ADDR:PORT  listen on TCP (default port 10809), up to 4 times; NBD has no\n"
          "                      password and no encryption\n"
          "  --timeout SECONDS   what the client waits for an answer (default 3): reads that wait\n"
          "                      longer for the store give their connection up before that\n"
          "  --control FD        talk to a supervisor over this socket, and serve what it hands "
          "over\n"
          "  --wait              wait for as long as another server has the device\n"
          "  --help, --version\n\n",
          file);
    for (unsigned i = 0; i < fsw_param_count; i++) {
        const struct fsw_param_info *param = &fsw_param_table[i];
        fprintf(file, "  %s=%s\n      %s%s%s\n", param->name, param->value, param->meaning,
                param->default_text ? "; default " : "",
                param->default_text ? param->default_text : "");
    }
}

static int set_control(struct fsw_nbd_options *options, const char *value, struct fsw_error *err)
{
    struct stat status;
    uint64_t fd;

    if (fsw_parse_u64(value, 0, 65535, &fd) < 0 || fstat((int)fd, &status) < 0 ||
        !S_ISSOCK(status.st_mode))
        return fsw_error(err, -EINVAL, "--control %s is not the number of an open socket", value);
    options->control = (int)fd;
    fcntl(options->control, F_SETFD, FD_CLOEXEC);
    return 0;
}

static int set_timeout(struct fsw_nbd_options *options, const char *value, struct fsw_error *err)
{
    uint64_t seconds;

    if (fsw_parse_u64(value, 1, TIMEOUT_MAX_S, &seconds) < 0)
        return fsw_error(err, -EINVAL, "--timeout %s is not allowed: 1 to %d seconds", value,
                         TIMEOUT_MAX_S);
    options->timeout = seconds * FSW_NS_PER_S;
    options->timeout_given = 1;
    return 0;
}

static int add_listen(struct fsw_nbd_options *options, const char *value, struct fsw_error *err)
{
    if (options->listens == FSW_NBD_LISTEN_MAX)
        return fsw_error(err, -EINVAL, "--listen is allowed %d times", FSW_NBD_LISTEN_MAX);
    return fsw_listen_parse(value, &options->listen[options->listens++], err);
}

static int set_option(struct fsw_nbd_options *options, int option, char **argv,
                      struct fsw_error *err)
{
    switch (option) {
    case 'u':
        options->unix_path = optarg;
        return 0;
    case 'l':
        return add_listen(options, optarg, err);
    case 'c':
        return set_control(options, optarg, err);
    case 't':
        return set_timeout(options, optarg, err);
    case 'w':
        options->wait = 1;
        return 0;
    case 'h':
        options->show_help = 1;
        return 0;
    case 'V':
        options->show_version = 1;
        return 0;
    case ':':
        return fsw_error(err, -EINVAL, "%s needs a value", argv[optind - 1]);
    default:
        return fsw_error(err, -EINVAL, "%s is no option; --help lists them", argv[optind - 1]);
    }
}

/* The first without = is the name. */
static int set_parameter(struct fsw_door *door, char *text, int first, struct fsw_error *err)
{
    char *equals = strchr(text, '=');

    if (equals == NULL && first)
        return fsw_door_set(door, "name", text, err);
    if (equals == NULL)
        return fsw_error(err, -EINVAL, "%s is neither an option nor KEY=VALUE", text);
    *equals = '\0';
    int r = fsw_door_set(door, text, equals + 1, err);
    *equals = '=';
    return r;
}

static int check(const struct fsw_nbd_options *options, struct fsw_error *err)
{
    if (options->unix_path == NULL && options->listens == 0 && options->control < 0)
        return fsw_error(err, -EINVAL,
                         "nobody could connect: say --unix PATH or --listen ADDR:PORT");
    return 0;
}

int fsw_nbd_options_parse(int argc, char **argv, struct fsw_nbd_options *ret_options,
                          struct fsw_door *door, struct fsw_error *err)
{
    struct fsw_nbd_options *options = ret_options;
    int option, r = 0;

    *options = (struct fsw_nbd_options){.control = -1, .timeout = TIMEOUT_DEFAULT_S * FSW_NS_PER_S};
    while (r == 0 && (option = getopt_long(argc, argv, ":", longopts, NULL)) != -1)
        r = set_option(options, option, argv, err);
    if (r < 0 || options->show_help || options->show_version)
        return r;
    for (int i = optind; r == 0 && i < argc; i++)
        r = set_parameter(door, argv[i], i == optind, err);
    return r == 0 ? check(options, err) : r;
}
