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
#include <unistd.h>

static void path_of(const char *name, const struct fsw_device_id *device, char path[PATH_MAX])
{
    char id[FSW_DEVICE_ID_TEXT];

    snprintf(path, PATH_MAX, "%s/%s@%s", fsw_registry_state_dir(), name,
             fsw_device_id_format(device, id));
}

int fsw_predecessors_keep(const struct fsw_record *record, struct fsw_error *err)
{
    char now[PATH_MAX], kept[PATH_MAX];
    struct fsw_record before;

    if (fsw_registry_read_state(record->name, &before) < 0 || before.overflow[0] == '\0' ||
        memcmp(&before.device, &record->device, sizeof before.device) == 0)
        return 0;
    snprintf(now, sizeof now, "%s/%s", fsw_registry_state_dir(), record->name);
    path_of(record->name, &before.device, kept);
    if (rename(now, kept) < 0)
        return fsw_error(err, -errno, "%s: %s", kept, strerror(errno));
    return 0;
}

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

/* An image of it is in memory, with or without a file: it may be served again. If nobody can tell, so
 * it is. */
static int is_alive(const struct fsw_device_id *device)
{
    struct search search = {.device = device};

    return fsw_registry_list(compare, &search, NULL) < 0 || search.found;
}

/* The device of a file "NAME@ID": 0, or it is another's. */
static int device_of(const char *file, const char *name, struct fsw_device_id *device)
{
    size_t length = strlen(name);

    return strncmp(file, name, length) == 0 && file[length] == '@'
               ? fsw_device_id_parse(file + length + 1, device)
               : -ENOENT;
}

unsigned fsw_predecessors_list(const char *name, struct fsw_record *records, unsigned room)
{
    struct dirent **files;
    struct fsw_device_id device;
    unsigned count = 0;
    int n = scandir(fsw_registry_state_dir(), &files, NULL, alphasort);

    for (int i = 0; i < n; i++) {
        if (count < room && device_of(files[i]->d_name, name, &device) == 0 &&
            fsw_registry_read_state(files[i]->d_name, &records[count]) == 0 && !is_alive(&device)) {
            records[count].device = device;
            snprintf(records[count].name, sizeof records[count].name, "%s", name);
            count++;
        }
        free(files[i]);
    }
    if (n >= 0)
        free(files);
    return count;
}

void fsw_predecessors_forgotten(const struct fsw_record *record)
{
    char path[PATH_MAX];

    path_of(record->name, &record->device, path);
    unlink(path);
}
