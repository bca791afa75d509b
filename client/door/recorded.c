/*
 * recorded.c: the store of a device, as its record names it.
 */
#include "client/door/recorded.h"

#include <stdio.h>

#include "client/store/store_open.h"
#include "farswap/params.h"

int fsw_recorded_store_open(const struct fsw_record *record, struct fsw_store **ret_store,
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

int fsw_recorded_store_forget(const struct fsw_record *record, uint64_t *ret_count,
                              struct fsw_error *err)
{
    struct fsw_store *store;
    int r = fsw_recorded_store_open(record, &store, err);

    *ret_count = 0;
    if (r < 0)
        return r;
    r = store->ops->forget(store, &record->device, ret_count, err);
    store->ops->close(store);
    return r;
}
