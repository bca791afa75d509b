/*
 * view.c: one look at an image, and the difference between two.
 */
#include "client/cli/view.h"

#include <stdio.h>
#include <string.h>

#include "client/cli/host.h"
#include "common/clock.h"
#include "common/parse.h"

static void find_swap(struct view *view)
{
    struct host_swap swap;

    view->swap[0] = '\0';
    if (!host_swap_of(&view->record, &swap))
        return;
    snprintf(view->swap, sizeof view->swap, "%.*s", (int)sizeof view->swap - 1, swap.path);
    view->priority = swap.priority;
}

/* ---- the image ---- */

/* Each acquired: the sequence is read again after them. */
static void read_error(const char *from, char *to, size_t room)
{
    for (size_t i = 0; i + 1 < room; i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_ACQUIRE);
}

static void read_copy(struct view *view, unsigned copy)
{
    struct fsw_copy_state *from = &view->image.super->copy_state[copy];
    struct view_copy *to = &view->copy[copy];

    to->is = view->record.served ? (enum fsw_copy_is)atomic_load(&from->state) : FSW_COPY_UNKNOWN;
    to->since = atomic_load(&from->since);
    to->lies = atomic_load(&from->lies);
    to->sent = atomic_load(&from->sent);
    to->received = atomic_load(&from->received);
    read_error(from->last_error, to->error, sizeof to->error);
}

static void read_store_state(struct view *view)
{
    struct fsw_store_state *state = &view->image.super->store_state;

    for (int tries = 0; tries < 1000; tries++) {
        uint32_t sequence = atomic_load(&state->sequence);
        view->store_connected = (int)atomic_load(&state->connected);
        view->store_since = atomic_load(&state->since);
        read_error(state->last_error, view->store_error, sizeof view->store_error);
        for (unsigned copy = 0; copy < view->copies; copy++)
            read_copy(view, copy);
        if (sequence % 2 == 0 && sequence == atomic_load(&state->sequence))
            return;
    }
}

/* Two stores are two URIs with a space between. */
static void name_copies(struct view *view)
{
    const char *at = view->record.overflow;

    while (*at != '\0' && view->copies < FSW_COPIES_MAX) {
        int length = (int)strcspn(at, " ");
        snprintf(view->copy[view->copies++].uri, sizeof view->copy[0].uri, "%.*s", length, at);
        at += length + (at[length] == ' ');
    }
}

static void look(struct view *view)
{
    view->at = fsw_now_ns();
    fsw_image_stats(&view->image, view->values);
    for (unsigned kind = 0; kind < FSW_LATENCY_COUNT; kind++)
        fsw_latency_read(&view->image, (enum fsw_latency)kind, view->times[kind]);
    read_store_state(view);
    find_swap(view);
    view->survival = survival_of(&view->record, (int)atomic_load(&view->image.super->holder));
}

int view_open(struct view *view, const struct fsw_record *record, int orphan, struct fsw_error *err)
{
    memset(view, 0, sizeof *view);
    view->record = *record;
    view->orphan = orphan;
    int r = fsw_registry_attach(record, 0, &view->image, err);
    if (r == 0) {
        name_copies(view);
        look(view);
    }
    return r;
}

void view_close(struct view *view)
{
    fsw_image_detach(&view->image);
}

static void subtract(const struct view *before, const struct view *after, struct view_rate *rate)
{
    rate->seconds = (double)(after->at - before->at) / (double)FSW_NS_PER_S;
    for (unsigned i = 0; i < FSW_STAT_COUNT; i++)
        rate->values[i] = (double)(int64_t)(after->values[i] - before->values[i]) / rate->seconds;
    for (unsigned kind = 0; kind < FSW_LATENCY_COUNT; kind++)
        for (unsigned i = 0; i < FSW_LATENCY_BUCKETS; i++)
            rate->times[kind][i] = after->times[kind][i] - before->times[kind][i];
}

void view_look(struct view *view, struct view_rate *ret_rate)
{
    static struct view before;

    before = *view;
    look(view);
    if (ret_rate != NULL)
        subtract(&before, view, ret_rate);
}

/* ---- words ---- */

const char *view_state(const struct view *view)
{
    return view->orphan ? "orphan" : view->record.served ? "served" : "stopped";
}

uint64_t view_cost(const struct view *view)
{
    return view->values[FSW_STAT_MEM_USED_TOTAL] + view->values[FSW_STAT_MEM_RESERVE];
}

uint64_t view_local(const struct view *view)
{
    return (view->values[FSW_STAT_PAGES_POOL] + view->values[FSW_STAT_PAGES_SAME]) * FSW_PAGE_SIZE;
}

char *view_time(uint64_t ns, char *text)
{
    if (ns == 0)
        snprintf(text, FSW_SIZE_TEXT, "-");
    else if (ns < 10000)
        snprintf(text, FSW_SIZE_TEXT, "%.1f us", (double)ns / 1e3);
    else if (ns < 1000000)
        snprintf(text, FSW_SIZE_TEXT, "%.0f us", (double)ns / 1e3);
    else if (ns < 1000000000)
        snprintf(text, FSW_SIZE_TEXT, "%.1f ms", (double)ns / 1e6);
    else
        snprintf(text, FSW_SIZE_TEXT, "%.1f s", (double)ns / 1e9);
    return text;
}
