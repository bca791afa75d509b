/*
 * options.h: the command line, checked.
 */
#ifndef FSW_NBD_OPTIONS_H
#define FSW_NBD_OPTIONS_H

#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#include "client/door/door.h"

#define FSW_NBD_LISTEN_MAX 4

struct fsw_nbd_options {
    const char *unix_path; /* NULL: none */
    struct sockaddr_storage listen[FSW_NBD_LISTEN_MAX];
    unsigned listens;
    int control; /* -1: none */
    int wait;
    uint64_t timeout; /* ns */
    int timeout_given;
    int show_help, show_version;
};

/* Parameters of the device go to the door. 0; or negative errno with one line that says what is
 * allowed. What was parsed before an error is there (control). */
int fsw_nbd_options_parse(int argc, char **argv, struct fsw_nbd_options *ret_options,
                          struct fsw_door *door, struct fsw_error *err);

void fsw_nbd_options_print_help(FILE *file);

#endif
