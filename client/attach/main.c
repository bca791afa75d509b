/*
 * main.c: farswap-attach.
 */
#include <stdio.h>

#include "client/attach/commands.h"
#include "client/attach/options.h"
#include "client/attach/say.h"
#include "client/attach/supervisor.h"

int main(int argc, char **argv)
{
    struct fsw_attach_options options;
    struct fsw_error err = {""};

    int r = fsw_attach_options_read(&options, argc, argv, &err);
    if (r < 0) {
        fsw_say("%s", err.text);
        return 2;
    }
    if (r > 0)
        return 0;
    fsw_say_name(options.name);
    switch (options.verb) {
    case FSW_ATTACH_STATUS:
        return fsw_command_status(&options);
    case FSW_ATTACH_DETACH:
        return fsw_command_detach(&options);
    case FSW_ATTACH_UPGRADE:
        return fsw_command_upgrade(&options);
    default:
        return fsw_supervise(&options);
    }
}
