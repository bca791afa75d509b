/*
 * predecessors.c: the files NAME@ID.
 */
#include "core/predecessors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/shm.h"

static void path_of(const char *name, const struct fsw_device_id *device, char path[PATH_MAX])
{
    char id[FSW_DEVICE_ID_TEXT];

    snprintf(path, PATH_MAX, "%s/%s@%s", fsw_registry_state_dir(), name,
             fsw_device_id_format(device, id));
}

static int retire(const struct fsw_record *before, struct fsw_error *err)
{
    char now[PATH_MAX], kept[PATH_MAX];

    snprintf(now, sizeof now, "%s/%s", fsw_registry_state_dir(), before->name);
    path_of(before->name, &before->device, kept);
    if (rename(now, kept) < 0)
        return fsw_error(err, -errno, "%s: %s", kept, strerror(errno));
    return 0;
}

int fsw_predecessors_keep(const struct fsw_record *record, struct fsw_error *err)
{
    struct fsw_record before;

    if (fsw_registry_read_state(record->name, &before) < 0 || before.overflow[0] == '\0' ||
        memcmp(&before.device, &record->device, sizeof before.device) == 0)
        return 0;
    return retire(&before, err);
}

int fsw_predecessors_retire(const char *name, struct fsw_error *err)
{
    struct fsw_record before;

    if (fsw_registry_read_state(name, &before) < 0 || before.overflow[0] == '\0')
        return 0;
    return retire(&before, err);
}

/* ---- the stores of two ---- */

/* The next word of overflow=, without what says how it is kept there; 0: there is none. */
static size_t next_store(const char **at)
{
    static const char encrypted[] = "crypt+";

    *at += strspn(*at, " ");
    if (strncmp(*at, encrypted, sizeof encrypted - 1) == 0)
        *at += sizeof encrypted - 1;
    return strcspn(*at, " ");
}

static int has_store(const char *overflow, const char *store, size_t length)
{
    size_t there;

    for (const char *at = overflow; (there = next_store(&at)) != 0; at += there)
        if (there == length && memcmp(at, store, length) == 0)
            return 1;
    return 0;
}

/* How many of the stores in `some` are in `overflow`; *ret_all: how many there are. */
static unsigned common_stores(const char *some, const char *overflow, unsigned *ret_all)
{
    unsigned common = 0;
    size_t length;

    *ret_all = 0;
    for (const char *at = some; (length = next_store(&at)) != 0; at += length) {
        common += (unsigned)has_store(overflow, at, length);
        (*ret_all)++;
    }
    return common;
}

int fsw_predecessor_is_within(const struct fsw_record *record, const char *overflow)
{
    unsigned all;

    return common_stores(record->overflow, overflow, &all) == all;
}

/* ---- those there are ---- */

struct search {
    const struct fsw_device_id *device;
    int found;
};

static int compare(const struct fsw_record *record, int orphan, void *opaque)
{
    struct search *search = opaque;

    search->found = memcmp(&record->device, search->device, sizeof record->device) == 0;
    return search->found;
}

/* Also one that the list leaves out: of another version, damaged, or being made this moment by a server
 * of another run directory, which may have put pages before we are done. */
static int bears_its_id(int shmid, uint64_t bytes, unsigned attached, void *opaque)
{
    enum fsw_image_remains remains = fsw_image_remains(shmid, opaque);

    return remains != FSW_IMAGE_NONE && remains != FSW_IMAGE_UNFINISHED;
}

/* An image of it is in memory, with or without a file: it may be served again. If nobody can tell, so
 * it is. */
static int is_alive(const struct fsw_device_id *device)
{
    struct search search = {.device = device};

    return fsw_registry_list(compare, &search, NULL) < 0 || search.found ||
           fsw_shm_each(bears_its_id, (void *)(uintptr_t)device) != 0;
}

/* The device of a file "NAME@ID": 0, or it is another's. */
static int device_of(const char *file, const char *name, struct fsw_device_id *device)
{
    size_t length = strlen(name);

    return strncmp(file, name, length) == 0 && file[length] == '@'
               ? fsw_device_id_parse(file + length + 1, device)
               : -ENOENT;
}

/* What a file says of a predecessor; 0: it says nothing of one. */
static int read_one(const char *file, const char *name, struct fsw_record *record)
{
    struct fsw_device_id device;

    if (device_of(file, name, &device) < 0 || fsw_registry_read_state(file, record) < 0 ||
        is_alive(&device))
        return 0;
    record->device = device;
    snprintf(record->name, sizeof record->name, "%s", name);
    return 1;
}

/* When its device was made: a file keeps that when it gets another name. */
static struct timespec made(const char *file)
{
    char path[PATH_MAX];
    struct stat stat = {0};

    snprintf(path, sizeof path, "%s/%s", fsw_registry_state_dir(), file);
    if (lstat(path, &stat) < 0)
        stat.st_mtim = (struct timespec){0};
    return stat.st_mtim;
}

static int newest_first(const struct dirent **a, const struct dirent **b)
{
    struct timespec x = made((*a)->d_name), y = made((*b)->d_name);

    return x.tv_sec != y.tv_sec ? (x.tv_sec < y.tv_sec) - (x.tv_sec > y.tv_sec)
                                : (x.tv_nsec < y.tv_nsec) - (x.tv_nsec > y.tv_nsec);
}

void fsw_predecessors_each(const char *name,
                           int (*each)(const struct fsw_record *record, void *opaque), void *opaque)
{
    struct dirent **files;
    struct fsw_record record;
    int n = scandir(fsw_registry_state_dir(), &files, NULL, newest_first), stop = 0;

    for (int i = 0; i < n; i++) {
        if (!stop && read_one(files[i]->d_name, name, &record))
            stop = each(&record, opaque);
        free(files[i]);
    }
    if (n >= 0)
        free(files);
}

struct ids {
    const char *overflow;
    struct fsw_device_id *ids;
    unsigned count, room;
};

static int add_id(const struct fsw_record *record, void *opaque)
{
    struct ids *ids = opaque;
    unsigned all;

    if (common_stores(record->overflow, ids->overflow, &all) > 0)
        ids->ids[ids->count++] = record->device;
    return ids->count == ids->room;
}

unsigned fsw_predecessors_at(const char *name, const char *overflow, struct fsw_device_id *ids,
                             unsigned room)
{
    struct ids all = {.overflow = overflow, .ids = ids, .room = room};

    fsw_predecessors_each(name, add_id, &all);
    return all.count;
}

void fsw_predecessors_forgotten(const struct fsw_record *record)
{
    char path[PATH_MAX];

    path_of(record->name, &record->device, path);
    unlink(path);
}
