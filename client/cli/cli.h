/*
 * cli.h: what the farswap command's files share. One file a command.
 *
 * Exit codes: 0 done; 1 it could not be done (the reason is on stderr); 2 the call itself was
 * wrong; 3 of down: memory is missing for swapoff, and everything stays up.
 */
#ifndef FSW_CLI_H
#define FSW_CLI_H

#include "core/registry.h"
#include "farswap/error.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_NO_MEMORY = 3 };

struct cli_command {
    const char *name, *arguments, *summary, *help, *examples;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name */
};

extern const struct cli_command cli_up, cli_down, cli_list, cli_status, cli_top, cli_stats,
    cli_check, cli_compact, cli_overflow, cli_set, cli_destroy, cli_doctor;

/* Standard output is a terminal, and NO_COLOR is not set. */
int cli_colours(void);

/* "farswap: text" on stderr; returns CLI_FAILED. */
int cli_fail(const struct fsw_error *err);

/* Prints how the command is called, and what was wrong; or, when it was asked for, all about it.
 * Returns CLI_USAGE, or CLI_OK. */
int cli_usage(const struct cli_command *command, int asked);

/* 1: the option was there, at any place, and is taken out of argv. */
int cli_take_option(int *argc, char **argv, const char *option);

/* The device that a command means: the one that is named, "shmid:N" for an orphan, or the only one
 * there is when name is NULL. */
int cli_find(const char *name, struct fsw_record *ret_record, int *ret_orphan,
             struct fsw_error *err);

/* The image of a device that is being served, mapped for writing: who serves it may be asked. */
int cli_open_served(const char *name, struct fsw_image *ret_image, struct fsw_record *ret_record,
                    struct fsw_error *err);

#endif
