/*
 * commands.h: --status, --detach and --upgrade, for the process that asks a supervisor. Where none
 * runs any more, status and detach do it themselves.
 */
#ifndef FSW_ATTACH_COMMANDS_H
#define FSW_ATTACH_COMMANDS_H

#include "client/attach/options.h"

/* The process's exit status. */
int fsw_command_status(const struct fsw_attach_options *options);
int fsw_command_detach(const struct fsw_attach_options *options);
int fsw_command_upgrade(const struct fsw_attach_options *options);

#endif
