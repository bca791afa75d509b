/*
 * status_json.c: farswap status --json. An array, one object a device:
 *
 *      name, state, pid, size, swap, priority, crash_loses_swap, settings{codec, ...},
 *      store{uri, connected, since, last_error, away, sent, received, copies[{uri, state, ...}]},
 *      counters{as farswap stats}, rates{counters, a second}, latency{read{count, p50_ns, ...}}
 */
#include <json-c/json.h>
#include <stdio.h>

#include "client/cli/settings.h"
#include "client/cli/status.h"
#include "core/budget.h"

static void put_text(struct json_object *object, const char *key, const char *text)
{
    json_object_object_add(object, key, text[0] ? json_object_new_string(text) : NULL);
}

static void put_number(struct json_object *object, const char *key, uint64_t number)
{
    json_object_object_add(object, key, json_object_new_uint64(number));
}

static struct json_object *all_settings(const struct view *view)
{
    struct json_object *object = json_object_new_object();
    char text[SETTING_TEXT];

    for (unsigned i = 0; i < settings_count; i++) {
        settings[i].value(view->image.super, text);
        put_text(object, settings[i].key, text);
    }
    return object;
}

static struct json_object *copy_of_store(const struct view_copy *copy)
{
    static const char *const states[] = {[FSW_COPY_UNKNOWN] = "",
                                         [FSW_COPY_AWAY] = "away",
                                         [FSW_COPY_EMPTIED] = "emptied",
                                         [FSW_COPY_GOOD] = "connected"};
    struct json_object *object = json_object_new_object();

    put_text(object, "uri", copy->uri);
    put_text(object, "state", copy->is <= FSW_COPY_GOOD ? states[copy->is] : "");
    json_object_object_add(object, "since", json_object_new_int64(copy->since));
    put_number(object, "sent", copy->sent);
    put_number(object, "received", copy->received);
    put_number(object, "lies", copy->lies);
    put_text(object, "last_error", copy->error);
    return object;
}

static struct json_object *store(const struct view *view)
{
    struct json_object *object = json_object_new_object();

    if (view->record.overflow[0] == '\0') {
        json_object_put(object);
        return NULL;
    }
    put_text(object, "uri", view->record.overflow);
    json_object_object_add(object, "connected",
                           json_object_new_boolean(view->record.served && view->store_connected));
    json_object_object_add(object, "since", json_object_new_int64(view->store_since));
    put_text(object, "last_error", view->store_error);
    put_number(object, "sent", view->values[FSW_STAT_STORE_SENT]);
    put_number(object, "received", view->values[FSW_STAT_STORE_RECEIVED]);
    json_object_object_add(
        object, "away",
        view->record.served ? json_object_new_uint64(view->values[FSW_STAT_STORES_AWAY]) : NULL);
    struct json_object *copies = json_object_new_array();
    for (unsigned copy = 0; copy < view->copies; copy++)
        json_object_array_add(copies, copy_of_store(&view->copy[copy]));
    json_object_object_add(object, "copies", copies);
    return object;
}

static struct json_object *latency(const struct view *view)
{
    const struct {
        const char *name;
        double part;
    } parts[] = {
        {"p50_ns", 0.5}, {"p90_ns", 0.9}, {"p99_ns", 0.99}, {"p999_ns", 0.999}, {"max_ns", 1}};
    struct json_object *object = json_object_new_object();

    for (unsigned kind = 0; kind < FSW_LATENCY_COUNT; kind++) {
        struct json_object *one = json_object_new_object();
        uint64_t count = 0;
        for (unsigned i = 0; i < FSW_LATENCY_BUCKETS; i++)
            count += view->times[kind][i];
        put_number(one, "count", count);
        for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++)
            put_number(one, parts[i].name,
                       fsw_latency_percentile(view->times[kind], parts[i].part));
        json_object_object_add(object, fsw_latency_table[kind].name, one);
    }
    return object;
}

/* What may leave for the store; null: there is no limit. */
static struct json_object *limit(const struct view *view)
{
    const struct fsw_superblock *super = view->image.super;
    uint64_t until = fsw_budget_until_refill(super);

    if (!fsw_budget_is_on(super))
        return NULL;
    struct json_object *object = json_object_new_object();
    put_number(object, "bytes", atomic_load(&super->overflow_limit));
    put_number(object, "left", fsw_budget_left(super));
    if (until != UINT64_MAX)
        put_number(object, "refill_s", until);
    return object;
}

static struct json_object *device(const struct view *view, const struct view_rate *rate)
{
    struct json_object *object = json_object_new_object(), *counters = json_object_new_object(),
                       *rates = json_object_new_object();

    put_text(object, "name", view->record.name);
    put_text(object, "state", view_state(view));
    put_number(object, "pid",
               view->record.served ? (uint64_t)atomic_load(&view->image.super->holder) : 0);
    put_number(object, "size", view->image.super->size);
    put_text(object, "swap", view->swap);
    json_object_object_add(object, "priority",
                           view->swap[0] ? json_object_new_int(view->priority) : NULL);
    json_object_object_add(object, "crash_loses_swap",
                           view->survival == SURVIVAL_UNKNOWN
                               ? NULL
                               : json_object_new_boolean(survival_is_bad(view->survival)));
    json_object_object_add(object, "settings", all_settings(view));
    json_object_object_add(object, "store", store(view));
    for (unsigned i = 0; i < FSW_STAT_COUNT; i++) {
        const struct fsw_stat_info *info = &fsw_stat_table[i];
        put_number(counters, info->name, view->values[i]);
        if (info->kind == FSW_STAT_COUNTER)
            json_object_object_add(rates, info->name, json_object_new_double(rate->values[i]));
    }
    json_object_object_add(object, "limit", limit(view));
    json_object_object_add(object, "counters", counters);
    json_object_object_add(object, "rates", rates);
    json_object_object_add(object, "latency", latency(view));
    return object;
}

void status_print_json(const struct view *views, const struct view_rate *rates, unsigned count)
{
    struct json_object *all = json_object_new_array();

    for (unsigned i = 0; i < count; i++)
        json_object_array_add(all, device(&views[i], &rates[i]));
    puts(json_object_to_json_string_ext(all,
                                        JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(all);
}
