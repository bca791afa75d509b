/*
 * doctor_device.c: what farswap doctor looks at of each device: its server's locks and supervisor,
 * swap on it, room for its pool, its store.
 */
#include <stdio.h>
#include <string.h>

#include "client/cli/findings.h"
#include "client/cli/host.h"
#include "client/cli/survival.h"
#include "client/door/recorded.h"
#include "common/parse.h"

static void look_at_server(const struct view *view)
{
    const char *name = view->record.name;
    int pid = (int)atomic_load(&view->image.super->holder);
    uint64_t locked = 0;
    long score = 0;
    char path[64];

    if (!view->record.served) {
        warn("%s: no server: its pages are kept, and nobody can read them. Start it again with the "
             "same name",
             name);
        return;
    }
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    if (!host_field(path, "VmLck", &locked)) {
        ok("%s: served by process %d, which can't be seen from here", name, pid);
        return;
    }
    if (locked == 0)
        warn("%s: process %d has no memory locked: it can be swapped out to the device it serves, "
             "and hang the "
             "host. Give it CAP_IPC_LOCK (systemd: LimitMEMLOCK=infinity)",
             name, pid);
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
    findings_number(path, &score);
    if (score > -1000)
        warn("%s: process %d can be killed by the OOM killer (oom_score_adj %ld): give it "
             "CAP_SYS_RESOURCE "
             "(systemd: OOMScoreAdjust=-1000)",
             name, pid, score);
    if (locked > 0 && score == -1000)
        ok("%s: process %d is locked in memory and safe from the OOM killer", name, pid);
}

static void look_at_survival(const struct view *view)
{
    int pid = (int)atomic_load(&view->image.super->holder);
    enum survival survival = survival_of(&view->record, pid);

    if (survival_is_bad(survival))
        warn("%s: %s", view->record.name, survival_text(survival));
    else if (survival == SURVIVAL_SURE)
        ok("%s: farswap-fuse has a supervisor, and survives a crash", view->record.name);
}

static void look_at_swap(const struct view *view)
{
    char text[512], path[256];
    int priority, better = 0;
    FILE *file;

    if (view->swap[0] == '\0' || (file = fopen("/proc/swaps", "re")) == NULL)
        return;
    while (fgets(text, sizeof text, file) != NULL)
        if (sscanf(text, "%255s %*s %*s %*s %d", path, &priority) == 2 &&
            strcmp(path, view->swap) != 0 && priority >= view->priority) {
            warn("%s: %s has priority %d and is used before %s (%d): give farswap the higher one "
                 "(swapon -p)",
                 view->record.name, path, priority, view->swap, view->priority);
            better = 1;
        }
    fclose(file);
    if (!better)
        ok("%s: swap on %s, before any other", view->record.name, view->swap);
}

/* swapon with discard begins with one of the whole device. */
static void look_at_discard(const struct view *view)
{
    char path[128];
    long most = 0;

    if (strncmp(view->swap, "/dev/", 5) != 0)
        return;
    snprintf(path, sizeof path, "/sys/block/%s/queue/discard_max_bytes", view->swap + 5);
    if (findings_number(path, &most) && most == 0)
        warn("%s: %s can't discard: pages that nobody uses any more keep their memory. Attach it "
             "by `farswap up`, which makes a device that can",
             view->record.name, view->swap);
    else if (view->values[FSW_STAT_DISCARDS] == 0)
        warn("%s: swap on %s is without discard: pages that nobody uses any more keep their "
             "memory. swapoff, then swapon --discard",
             view->record.name, view->swap);
    else
        ok("%s: %s discards", view->record.name, view->swap);
}

static void look_at_room(const struct view *view)
{
    uint64_t available, limit = view->values[FSW_STAT_MEM_LIMIT], cost = view_cost(view);
    char a[FSW_SIZE_TEXT], b[FSW_SIZE_TEXT];

    if (!host_field("/proc/meminfo", "MemAvailable", &available))
        return;
    if (limit > cost && limit - cost > available)
        warn("%s: memory=%s, of which %s is still to be taken, is more than this host has free "
             "(%s): the pool "
             "would push out what it should make room for. Lower it: farswap set %s memory=...",
             view->record.name, fsw_format_size(limit, a), fsw_format_size(limit - cost, b),
             fsw_format_size(available, (char[FSW_SIZE_TEXT]){""}), view->record.name);
    else
        ok("%s: there is memory for what memory=%s may still take", view->record.name,
           fsw_format_size(limit, a));
}

/* One that answers, and is not what the device left there. */
static void look_for_emptied(const struct view *view)
{
    for (unsigned copy = 0; view->record.served && copy < view->copies; copy++)
        if (view->copy[copy].is == FSW_COPY_EMPTIED)
            fail("%s: %s was emptied or replaced: what only it had is waited for, and nothing is "
                 "put "
                 "there alone. If that never comes back: farswap set %s overflow-lost=%u",
                 view->record.name, view->copy[copy].uri, view->record.name, copy + 1);
}

static void look_at_store(const struct view *view)
{
    struct fsw_error err = {""};
    struct fsw_store *store = NULL;

    if (view->record.overflow[0] == '\0') {
        ok("%s: no store: what does not fit memory= is refused (ENOSPC)", view->record.name);
        return;
    }
    int r = fsw_recorded_store_open(&view->record, &store, &err);
    if (r == 0) {
        r = store->ops->probe(store, &err);
        store->ops->close(store);
    }
    if (r < 0)
        fail("%s: store: %s", view->record.name, err.text);
    else if (err.text[0] != '\0')
        warn("%s: %s", view->record.name, err.text);
    else
        ok("%s: %s answers", view->record.name, view->record.overflow);
    look_for_emptied(view);
}

void look_at_device(const struct view *view)
{
    look_at_server(view);
    look_at_survival(view);
    look_at_swap(view);
    look_at_discard(view);
    look_at_room(view);
    look_at_store(view);
}
