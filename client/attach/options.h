/*
 * options.h: what farswap-attach was told on its command line.
 */
#ifndef FSW_ATTACH_OPTIONS_H
#define FSW_ATTACH_OPTIONS_H

#include <limits.h>
#include <stdint.h>

#include "farswap/params.h"

enum fsw_attach_verb { FSW_ATTACH_RUN, FSW_ATTACH_STATUS, FSW_ATTACH_DETACH, FSW_ATTACH_UPGRADE };

struct fsw_attach_options {
    enum fsw_attach_verb verb;
    const char *name;
    int index; /* of --device, or -1 */
    uint64_t timeout, dead_timeout;
    char server[PATH_MAX]; /* "" where none was given (FSW_ATTACH_UPGRADE) */
    const char *connect, *export_name;
    int force;
    const char *called; /* argv[0] */
    char **params;      /* key=value */
    unsigned param_count;
};

/* 0; 1 if there is nothing more to do (--help, --version); -EINVAL with one line. The strings are
 * argv's. */
int fsw_attach_options_read(struct fsw_attach_options *options, int argc, char **argv,
                            struct fsw_error *err);

#endif
