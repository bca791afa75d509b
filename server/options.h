/*
 * options.h: the command line, checked. Addresses are numeric: a name that is looked up could be
 * another machine's tomorrow.
 */
#ifndef FSW_SERVER_OPTIONS_H
#define FSW_SERVER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#include "farswap/error.h"
#include "server/limits.h"

#define FSW_LISTEN_MAX 16
#define FSW_PORT_DEFAULT 6390
#define FSW_PASSWORD_MAX 512

struct fsw_server_options {
    struct sockaddr_storage listen[FSW_LISTEN_MAX];
    unsigned listens;
    const char *unix_path; /* NULL: none */
    uint64_t memory;
    uint64_t keep;       /* what the host keeps available for itself */
    unsigned patience;   /* seconds that a client has for what it began */
    const char *name;    /* "donor" unless named */
    bool named;          /* the image outlives the process */
    const char *destroy; /* NULL, or the name whose image goes; nothing else is done */
    char *password;      /* NULL: none; the caller's to free */
    bool show_help, show_version;
};

/* 0; or negative errno with one line that says what is allowed. Strings point into argv, but for
 * the password, which is read from its file. Permutes argv. */
int fsw_server_options_parse(int argc, char **argv, struct fsw_server_options *ret_options,
                             struct fsw_error *err);

void fsw_server_options_print_help(FILE *file);

#endif
