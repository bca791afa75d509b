/*
 * host.c: /proc/swaps, /proc/mounts, /sys/block.
 *
 * A loop device is known by the file that it is over, an nbd device by its backend identifier,
 * which farswap-attach makes the device's id, and a mount by its source, "farswap:NAME".
 */
#include "client/cli/host.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 1 if the first line of a file says so. */
static int file_says(const char *path, const char *wanted)
{
    char line[PATH_MAX];
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return 0;
    int same = fgets(line, sizeof line, file) != NULL &&
               strncmp(line, wanted, strlen(wanted)) == 0 &&
               strchr("\n", line[strlen(wanted)]) != NULL;
    fclose(file);
    return same;
}

int host_field(const char *path, const char *name, uint64_t *ret_bytes)
{
    char text[256];
    unsigned long long number = 0;
    int found = 0;
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return 0;
    while (!found && fgets(text, sizeof text, file) != NULL)
        if (strncmp(text, name, strlen(name)) == 0 && text[strlen(name)] == ':')
            found = sscanf(text + strlen(name) + 1, "%llu", &number) == 1;
    fclose(file);
    if (found)
        *ret_bytes = strstr(text, "kB") != NULL ? number * 1024 : number;
    return found;
}

int host_may(int capability)
{
    char line[128];
    unsigned long long effective = 0;
    FILE *file = fopen("/proc/self/status", "re");

    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "CapEff: %llx", &effective) == 1)
            break;
    fclose(file);
    return effective >> capability & 1;
}

void host_run_path(const char *name, const char *what, char path[PATH_MAX])
{
    const char *dir = secure_getenv("FARSWAP_RUNDIR");

    snprintf(path, PATH_MAX, "%s/%s.%s", dir != NULL && *dir != '\0' ? dir : "/run/farswap", name,
             what);
}

/* ---- doors ---- */

int host_mount_of(const char *name, char mountpoint[512])
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

/* 1 if that loop device ("loop7") is over MOUNTPOINT/disk. */
static int is_loop_over(const char *block, const char *mountpoint)
{
    char path[384], disk[600];

    snprintf(path, sizeof path, "/sys/block/%s/loop/backing_file", block);
    snprintf(disk, sizeof disk, "%s/disk", mountpoint);
    return file_says(path, disk);
}

int host_loop_over(const char *mountpoint, char device[HOST_BLOCK])
{
    struct dirent *entry;
    DIR *dir = opendir("/sys/block");
    int found = 0;

    if (dir == NULL)
        return 0;
    while (!found && (entry = readdir(dir)) != NULL)
        if (strncmp(entry->d_name, "loop", 4) == 0 && is_loop_over(entry->d_name, mountpoint))
            found = snprintf(device, HOST_BLOCK, "/dev/%s", entry->d_name) < HOST_BLOCK;
    closedir(dir);
    return found;
}

/* 1 if the block device of that name ("nbd3", "loop7") is a door of this device. */
static int is_door(const struct fsw_record *record, const char *block)
{
    char path[384], id[FSW_DEVICE_ID_TEXT], mountpoint[512];

    snprintf(path, sizeof path, "/sys/block/%s/backend", block);
    if (strncmp(block, "nbd", 3) == 0)
        return file_says(path, fsw_device_id_format(&record->device, id));
    return strncmp(block, "loop", 4) == 0 && host_mount_of(record->name, mountpoint) &&
           is_loop_over(block, mountpoint);
}

/* ---- swap ---- */

int host_each_swap(int (*each)(const struct host_swap *swap, void *opaque), void *opaque)
{
    char line[512];
    struct host_swap swap;
    unsigned long long size, used;
    int r = 0;
    FILE *file = fopen("/proc/swaps", "re");

    if (file == NULL)
        return 0;
    while (r == 0 && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "%255s %*s %llu %llu %d", swap.path, &size, &used, &swap.priority) != 4)
            continue; /* the heading */
        swap.size = size * 1024;
        swap.used = used * 1024;
        r = each(&swap, opaque);
    }
    fclose(file);
    return r;
}

struct wanted {
    const char *device;
    const struct fsw_record *record;
    struct host_swap *swap;
};

static int is_wanted(const struct host_swap *swap, void *opaque)
{
    struct wanted *wanted = opaque;
    int hit = wanted->record == NULL
                  ? strcmp(swap->path, wanted->device) == 0
                  : strncmp(swap->path, "/dev/", 5) == 0 && is_door(wanted->record, swap->path + 5);

    if (hit)
        *wanted->swap = *swap;
    return hit;
}

int host_swap_on(const char *device, struct host_swap *ret_swap)
{
    struct wanted wanted = {.device = device, .swap = ret_swap};

    return host_each_swap(is_wanted, &wanted);
}

int host_swap_of(const struct fsw_record *record, struct host_swap *ret_swap)
{
    struct wanted wanted = {.record = record, .swap = ret_swap};

    return host_each_swap(is_wanted, &wanted);
}

struct elsewhere {
    const char *device;
    uint64_t free;
};

static int add_free(const struct host_swap *swap, void *opaque)
{
    struct elsewhere *elsewhere = opaque;

    if (strcmp(swap->path, elsewhere->device) != 0)
        elsewhere->free += swap->size - swap->used;
    return 0;
}

uint64_t host_swap_elsewhere(const char *device)
{
    struct elsewhere elsewhere = {.device = device};

    host_each_swap(add_free, &elsewhere);
    return elsewhere.free;
}

static int raise_priority(const struct host_swap *swap, void *opaque)
{
    int *highest = opaque;

    if (swap->priority > *highest)
        *highest = swap->priority;
    return 0;
}

int host_swap_priority(void)
{
    int highest = -1;

    host_each_swap(raise_priority, &highest);
    return highest < HOST_PRIORITY_MAX ? highest + 1 : HOST_PRIORITY_MAX;
}
