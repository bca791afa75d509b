/*
 * options.c: one table of options; getopt's, the help and the line about unknown ones come from it.
 */
#include "server/options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "common/parse.h"
#include "server/pressure.h"

#define NAME_MAX_BYTES 64
#define MEMORY_MIN (4ull << 20)
#define MEMORY_MAX (1ull << 46)
#define MEMORY_DEFAULT (1ull << 30)
#define PATIENCE_MAX 86400

/* ---- values of options ---- */

/* "1.2.3.4", "1.2.3.4:5", "[::1]", "[::1]:5" */
static int parse_address(const char *text, struct sockaddr_storage *ret_address)
{
    char host[INET6_ADDRSTRLEN + 1] = "";
    const char *end, *begin = text + (*text == '[');
    uint64_t port = FSW_PORT_DEFAULT;
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret_address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret_address;

    end = begin + strcspn(begin, *text == '[' ? "]" : ":");
    if ((size_t)(end - begin) >= sizeof host)
        return -EINVAL;
    memcpy(host, begin, (size_t)(end - begin));
    if (*text == '[' && *end++ != ']')
        return -EINVAL;
    if (*end != '\0' && (*end != ':' || fsw_parse_u64(end + 1, 0, UINT16_MAX, &port) < 0))
        return -EINVAL;
    memset(ret_address, 0, sizeof *ret_address);
    if (*text != '[' && inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        return 0;
    }
    if (*text == '[' && inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        return 0;
    }
    return -EINVAL;
}

static int option_listen(const char *text, struct fsw_server_options *options,
                         struct fsw_error *err)
{
    if (options->listens == FSW_LISTEN_MAX)
        return fsw_error(err, -EINVAL, "--listen may be given %d times", FSW_LISTEN_MAX);
    if (parse_address(text, &options->listen[options->listens]) < 0)
        return fsw_error(err, -EINVAL,
                         "--listen %s: allowed is a numeric ADDR:PORT, like 127.0.0.1:6390, "
                         "0.0.0.0:6390 or [::1]:6390",
                         text);
    options->listens++;
    return 0;
}

static int option_unix(const char *path, struct fsw_server_options *options, struct fsw_error *err)
{
    size_t max = sizeof((struct sockaddr_un *)NULL)->sun_path - 1;

    if (*path == '\0' || strlen(path) > max)
        return fsw_error(err, -EINVAL, "--unix: allowed is a path of 1 to %zu bytes", max);
    options->unix_path = path;
    return 0;
}

static int option_memory(const char *text, struct fsw_server_options *options,
                         struct fsw_error *err)
{
    if (fsw_parse_size(text, &options->memory) < 0 || options->memory < MEMORY_MIN ||
        options->memory > MEMORY_MAX)
        return fsw_error(err, -EINVAL, "--memory %s: allowed is a size from 4M to 64T, like 32G",
                         text);
    return 0;
}

static int option_keep(const char *text, struct fsw_server_options *options, struct fsw_error *err)
{
    if (fsw_parse_size(text, &options->keep) < 0)
        return fsw_error(err, -EINVAL, "--keep-available %s: allowed is a size, like 2G, or 0",
                         text);
    return 0;
}

static int option_patience(const char *text, struct fsw_server_options *options,
                           struct fsw_error *err)
{
    uint64_t seconds;

    if (fsw_parse_u64(text, 1, PATIENCE_MAX, &seconds) < 0)
        return fsw_error(err, -EINVAL, "--patience %s: allowed are 1 to %d seconds", text,
                         PATIENCE_MAX);
    options->patience = (unsigned)seconds;
    return 0;
}

/* -EINVAL with one line that names the option. */
static int check_name(const char *option, const char *text, struct fsw_error *err)
{
    size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                 "._-");

    if (length == 0 || length > NAME_MAX_BYTES || text[length] != '\0')
        return fsw_error(err, -EINVAL,
                         "%s %.80s: allowed are 1 to %d letters, digits, '.', '_' and '-'", option,
                         text, NAME_MAX_BYTES);
    return 0;
}

static int option_name(const char *text, struct fsw_server_options *options, struct fsw_error *err)
{
    options->name = text;
    options->named = true;
    return check_name("--name", text, err);
}

static int option_destroy(const char *text, struct fsw_server_options *options,
                          struct fsw_error *err)
{
    options->destroy = text;
    return check_name("--destroy", text, err);
}

static int option_password(const char *path, struct fsw_server_options *options,
                           struct fsw_error *err)
{
    char line[FSW_PASSWORD_MAX + 2] = "";
    FILE *file = fopen(path, "re");
    int r = 0;

    if (file == NULL)
        return fsw_error(err, -errno, "--requirepass-file %s: %s", path, strerror(errno));
    setvbuf(file, NULL, _IONBF, 0); /* no second copy of the secret */
    if (fgets(line, sizeof line, file) != NULL)
        line[strcspn(line, "\r\n")] = '\0';
    fclose(file);
    free(options->password);
    options->password = NULL;
    if (line[0] == '\0' || strlen(line) > FSW_PASSWORD_MAX)
        r = fsw_error(err, -EINVAL,
                      "--requirepass-file %s: its first line must be a password of 1 to %d bytes",
                      path, FSW_PASSWORD_MAX);
    else if ((options->password = strdup(line)) == NULL)
        r = fsw_error(err, -ENOMEM, "out of memory");
    explicit_bzero(line, sizeof line);
    return r;
}

/* ---- the whole ---- */

static bool is_loopback(const struct sockaddr_storage *address)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;

    if (address->ss_family == AF_INET)
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static int check_password(const struct fsw_server_options *options, struct fsw_error *err)
{
    for (unsigned i = 0; i < options->listens; i++)
        if (!is_loopback(&options->listen[i]) && options->password == NULL)
            return fsw_error(err, -EPERM,
                             "an address that is not loopback needs a password: give "
                             "--requirepass-file FILE, or listen on 127.0.0.1, [::1] or --unix");
    return 0;
}

static int option_help(const char *text, struct fsw_server_options *options, struct fsw_error *err)
{
    options->show_help = true;
    return 0;
}

static int option_version(const char *text, struct fsw_server_options *options,
                          struct fsw_error *err)
{
    options->show_version = true;
    return 0;
}

static const struct {
    const char *name, *argument; /* argument: "" for none */
    int (*take)(const char *text, struct fsw_server_options *options, struct fsw_error *err);
    const char *help; /* lines */
} table[] = {
    {"listen", "ADDR:PORT", option_listen,
     "address to listen on, numeric; may be repeated; port 0 chooses one\n"
     "(default 127.0.0.1:6390, unless --unix is given)"},
    {"unix", "PATH", option_unix, "Unix socket to listen on; made with mode 0600"},
    {"memory", "SIZE", option_memory,
     "what this donor may take, all included, 4M to 64T (default 1G)"},
    {"name", "NAME", option_name,
     "keep the values when this process ends, for the next one of that name"},
    {"keep-available", "SIZE", option_keep,
     "refuse new values while this host has less memory available\n"
     "(default 5% of its memory, 1G at most); 0: never"},
    {"patience", "SECONDS", option_patience,
     "what a client has to show the password, to end a request, and to\n"
     "read answers that wait for it (default 60)"},
    {"requirepass-file", "FILE", option_password,
     "file whose first line is the password that clients must show;\n"
     "required for an address that is not loopback"},
    {"destroy", "NAME", option_destroy, "remove the values kept under that name, and end"},
    {"help", "", option_help, "this text"},
    {"version", "", option_version, "the version"},
};
#define TABLE_LENGTH (sizeof table / sizeof table[0])
#define HELP_COLUMN 26

void fsw_server_options_print_help(FILE *file)
{
    fprintf(file, "farswapd gives memory of this machine to others that swap.\n\n"
                  "usage: farswapd [options]\n\n");
    for (unsigned i = 0; i < TABLE_LENGTH; i++) {
        int column = fprintf(file, "  --%s %s", table[i].name, table[i].argument);
        fprintf(file, "%*s", HELP_COLUMN + 2 - column, "");
        for (const char *p = table[i].help; *p != '\0'; p++) {
            fputc(*p, file);
            if (*p == '\n')
                fprintf(file, "%*s", HELP_COLUMN + 2, "");
        }
        fputc('\n', file);
    }
}

static int bad_option(const char *text, struct fsw_error *err)
{
    char allowed[384] = "";
    size_t length = 0;

    for (unsigned i = 0; i < TABLE_LENGTH && length < sizeof allowed; i++)
        length +=
            (size_t)snprintf(allowed + length, sizeof allowed - length, " --%s%s%s", table[i].name,
                             *table[i].argument != '\0' ? " " : "", table[i].argument);
    return fsw_error(err, -EINVAL,
                     "%.100s: unknown option, or one without its value; allowed are%s", text,
                     allowed);
}

int fsw_server_options_parse(int argc, char **argv, struct fsw_server_options *ret_options,
                             struct fsw_error *err)
{
    struct fsw_server_options options = {.memory = MEMORY_DEFAULT,
                                         .patience = FSW_MAX_REQUEST_SECONDS,
                                         .name = "donor",
                                         .keep = fsw_pressure_keep_default()};
    struct option known[TABLE_LENGTH + 1] = {0};
    int i, r = 0;

    for (i = 0; i < (int)TABLE_LENGTH; i++)
        known[i] = (struct option){
            table[i].name, *table[i].argument != '\0' ? required_argument : no_argument, NULL, i};
    opterr = 0;
    optind = 0;
    while (r == 0 && (i = getopt_long(argc, argv, ":", known, NULL)) != -1)
        r = i == '?' || i == ':' ? bad_option(argv[optind - 1], err)
                                 : table[i].take(optarg, &options, err);
    if (r == 0 && optind < argc)
        r = bad_option(argv[optind], err);
    if (r == 0 && options.listens == 0 && options.unix_path == NULL)
        r = option_listen("127.0.0.1", &options, err);
    if (r == 0 && !options.show_help && !options.show_version && options.destroy == NULL)
        r = check_password(&options, err);
    if (r < 0)
        free(options.password);
    else
        *ret_options = options;
    return r;
}
