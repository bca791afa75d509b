/*
 * store.c: the store of a device, as its record names it.
 */
#include <stdio.h>

#include "client/cli/cli.h"
#include "client/store/store_open.h"
#include "farswap/params.h"

int cli_open_store(const struct fsw_record *record, struct fsw_store **ret_store,
                   struct fsw_error *err)
{
    struct fsw_params params = {0};
    struct fsw_store_options options = {.uri = record->overflow,
                                        .plaintext = record->overflow_plaintext};
    char file[sizeof record->overflow_password_file + 1];
    int r = 0;

    if (record->overflow_password_file[0] != '\0') {
        snprintf(file, sizeof file, "+%s", record->overflow_password_file);
        r = fsw_params_set(&params, "overflow-password", file, err);
        options.password = params.overflow_password;
    }
    if (r == 0)
        r = fsw_store_open(&options, ret_store, err);
    fsw_params_wipe(&params);
    return r;
}
