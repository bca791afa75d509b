/*
 * report.c: what a store says of itself.
 */
#include "client/store/report.h"

#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"

void report_init(struct report *report)
{
    memset(report, 0, sizeof *report);
    pthread_mutex_init(&report->lock, NULL);
    report->since = fsw_now_ns();
}

void report_deinit(struct report *report)
{
    pthread_mutex_destroy(&report->lock);
}

void report_say(struct report *report, const char *what, const char *why)
{
    FSW_LOCK_SCOPE(&report->lock);
    snprintf(report->last_error, sizeof report->last_error, "%s%s%s", what, why ? ": " : "",
             why ? why : "");
}

void report_connected(struct report *report, int connected)
{
    FSW_LOCK_SCOPE(&report->lock);
    if (connected == report->connected)
        return;
    report->connected = connected;
    report->since = fsw_now_ns();
}

void report_emptied(struct report *report, const char *who, int emptied)
{
    if (emptied)
        report_say(report, who, "it was emptied or replaced; see overflow-lost= in farswap(1)");
    atomic_store(&report->emptied, emptied);
}

void report_health(struct report *report, struct fsw_store_health *ret_health)
{
    *ret_health = (struct fsw_store_health){
        .puts = report->answered[FSW_STORE_PUT],
        .gets = report->answered[FSW_STORE_GET],
        .drops = report->answered[FSW_STORE_DROP],
        .bytes_out = report->bytes_out,
        .bytes_in = report->bytes_in,
        .reconnects = report->reconnects,
        .retries = report->retries,
        .errors = report->errors,
    };
    ret_health->copy[0].bytes_out = ret_health->bytes_out;
    ret_health->copy[0].bytes_in = ret_health->bytes_in;
    FSW_LOCK_SCOPE(&report->lock);
    ret_health->connected = report->connected;
    ret_health->up = report->connected != 0;
    ret_health->emptied = atomic_load(&report->emptied) != 0;
    ret_health->since = report->since;
    memcpy(ret_health->last_error, report->last_error, sizeof report->last_error);
    memcpy(ret_health->copy[0].last_error, report->last_error, sizeof report->last_error);
}

void report_finish(struct report *report, struct fsw_store_request *request,
                   enum fsw_store_result result, uint32_t copies)
{
    request->result = result;
    request->copies = result == FSW_STORE_OK ? copies : 0;
    request->emptied = atomic_load(&report->emptied) ? request->copies : request->emptied;
    if (result != FSW_STORE_UNREACHABLE)
        report->answered[request->verb]++;
    if (result != FSW_STORE_OK)
        report->errors++;
    request->done(request);
}
