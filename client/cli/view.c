/*
 * view.c: one look at an image, and the difference between two.
 */
#include "client/cli/view.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/parse.h"

/* ---- the kernel's side ---- */

/* 1 if the first line of a file says so. */
static int file_says(const char *path, const char *wanted)
{
    char line[512];
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return 0;
    int same = fgets(line, sizeof line, file) != NULL &&
               strncmp(line, wanted, strlen(wanted)) == 0 &&
               strchr("\n", line[strlen(wanted)]) != NULL;
    fclose(file);
    return same;
}

/* farswap-fuse names the device as its mount's source. 1 and the mount's folder. */
static int find_mount(const char *name, char mountpoint[512])
{
    char line[1024], source[256], type[64], wanted[128];
    FILE *file = fopen("/proc/self/mounts", "re");
    int found = 0;

    if (file == NULL)
        return 0;
    snprintf(wanted, sizeof wanted, "farswap:%s", name);
    while (!found && fgets(line, sizeof line, file) != NULL)
        found = sscanf(line, "%255s %511s %63s", source, mountpoint, type) == 3 &&
                strncmp(type, "fuse", 4) == 0 && strcmp(source, wanted) == 0;
    fclose(file);
    return found;
}

/* 1 if the block device of that name ("nbd3", "loop7") is a door of this device. */
static int is_door(const struct view *view, const char *block)
{
    char path[384], id[FSW_DEVICE_ID_TEXT], mountpoint[512], disk[600];

    snprintf(path, sizeof path, "/sys/block/%s/backend", block);
    if (strncmp(block, "nbd", 3) == 0)
        return file_says(path, fsw_device_id_format(&view->record.device, id));
    if (strncmp(block, "loop", 4) != 0 || !find_mount(view->record.name, mountpoint))
        return 0;
    snprintf(path, sizeof path, "/sys/block/%s/loop/backing_file", block);
    snprintf(disk, sizeof disk, "%s/disk", mountpoint);
    return file_says(path, disk);
}

static void find_swap(struct view *view)
{
    char line[512], path[256];
    int priority;
    FILE *file = fopen("/proc/swaps", "re");

    view->swap[0] = '\0';
    if (file == NULL)
        return;
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "%255s %*s %*s %*s %d", path, &priority) == 2 &&
            strncmp(path, "/dev/", 5) == 0 && strlen(path) < sizeof view->swap &&
            is_door(view, path + 5)) {
            memcpy(view->swap, path, strlen(path) + 1);
            view->priority = priority;
            break;
        }
    fclose(file);
}

/* ---- the image ---- */

static void read_store_state(struct view *view)
{
    struct fsw_store_state *state = &view->image.super->store_state;

    for (int tries = 0; tries < 1000; tries++) {
        uint32_t sequence = atomic_load(&state->sequence);
        view->store_connected = (int)atomic_load(&state->connected);
        view->store_since = atomic_load(&state->since);
        memcpy(view->store_error, state->last_error, sizeof view->store_error);
        view->store_error[sizeof view->store_error - 1] = '\0';
        atomic_thread_fence(memory_order_acquire);
        if (sequence % 2 == 0 && sequence == atomic_load(&state->sequence))
            return;
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
}

int view_open(struct view *view, const struct fsw_record *record, int orphan, struct fsw_error *err)
{
    memset(view, 0, sizeof *view);
    view->record = *record;
    view->orphan = orphan;
    int r = fsw_registry_attach(record, 0, &view->image, err);
    if (r == 0)
        look(view);
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
