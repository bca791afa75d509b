/*
 * cgroup.c: a walk over /proc/mounts' memory hierarchy. The numbers are of whole subtrees, so each
 * cgroup that has a limit is judged by itself.
 */
#include "client/cli/cgroup.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

struct version {
    const char *limit, *usage, *swap, *swap_stat, *cached, *files[2];
};

/* Without `swap`, memory.stat has it as swap_stat. Version 2 counts pages that are in memory as well (cached). */
static const struct version versions[] = {
    {.limit = "memory.limit_in_bytes",
     .usage = "memory.usage_in_bytes",
     .swap_stat = "total_swap",
     .files = {"total_inactive_file", "total_active_file"}},
    {.limit = "memory.max",
     .usage = "memory.current",
     .swap = "memory.swap.current",
     .cached = "swapcached",
     .files = {"inactive_file", "active_file"}},
};

struct walk {
    const struct version *version;
    uint64_t most, elsewhere;
    struct cgroup_short *worst;
};

/* ---- one cgroup ---- */

/* 1 and the number in a file; "max" is none. */
static int read_number(const char *folder, const char *name, uint64_t *ret_number)
{
    char path[PATH_MAX];
    unsigned long long number;

    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return 0;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    int found = fscanf(file, "%llu", &number) == 1;
    fclose(file);
    if (found)
        *ret_number = number;
    return found;
}

/* 0 for what is not there. */
static uint64_t read_stat(const char *folder, const char *name)
{
    char path[PATH_MAX], key[64];
    unsigned long long number = 0;
    int found = 0;

    if (name == NULL || snprintf(path, sizeof path, "%s/memory.stat", folder) >= (int)sizeof path)
        return 0;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    while (!found && fscanf(file, "%63s %llu", key, &number) == 2)
        found = strcmp(key, name) == 0;
    fclose(file);
    return found ? number : 0;
}

static uint64_t less(uint64_t from, uint64_t amount)
{
    return from > amount ? from - amount : 0;
}

/* Pages of files make room. */
static void look(struct walk *walk, const char *folder)
{
    const struct version *version = walk->version;
    uint64_t limit, usage = 0, swapped = 0;

    if (!read_number(folder, version->limit, &limit))
        return;
    if (version->swap == NULL)
        swapped = read_stat(folder, version->swap_stat);
    else
        read_number(folder, version->swap, &swapped);
    swapped = less(swapped, read_stat(folder, version->cached));
    if (swapped == 0)
        return;
    if (swapped > walk->most)
        swapped = walk->most;
    read_number(folder, version->usage, &usage);
    uint64_t room = less(limit, usage) + read_stat(folder, version->files[0]) +
                    read_stat(folder, version->files[1]);
    uint64_t lack = less(less(swapped, room), walk->elsewhere);
    if (lack == 0)
        return;
    walk->worst->others++;
    if (lack > walk->worst->lack) {
        walk->worst->lack = lack;
        walk->worst->swapped = swapped;
        walk->worst->room = room;
        snprintf(walk->worst->limit, sizeof walk->worst->limit, "%.*s/%s", PATH_MAX - 32, folder,
                 version->limit);
    }
}

/* ---- all ---- */

/* path is used as room for the names below it, and given back as it was. */
static void descend(struct walk *walk, char path[PATH_MAX])
{
    size_t length = strlen(path);
    struct dirent *entry;

    look(walk, path);
    DIR *dir = opendir(path);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.' ||
            length + 1 + strlen(entry->d_name) >= PATH_MAX)
            continue;
        snprintf(path + length, PATH_MAX - length, "/%s", entry->d_name);
        descend(walk, path);
        path[length] = '\0';
    }
    if (dir != NULL)
        closedir(dir);
}

/* Of a line of /proc/mounts; NULL: none of memory. */
static const struct version *version_of(const char *type, const char *options)
{
    if (strcmp(type, "cgroup2") == 0)
        return &versions[1];
    for (const char *at = options; strcmp(type, "cgroup") == 0 && at != NULL;
         at = strchr(at, ',') != NULL ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, "memory", 6) == 0 && strchr(",", at[6]) != NULL)
            return &versions[0];
    return NULL;
}

int cgroup_find_short(uint64_t most, uint64_t elsewhere, struct cgroup_short *ret_short)
{
    struct walk walk = {.most = most, .elsewhere = elsewhere, .worst = ret_short};
    char line[1024], mountpoint[PATH_MAX], type[64], options[512];
    FILE *file = fopen("/proc/mounts", "re");

    memset(ret_short, 0, sizeof *ret_short);
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "%*s %1023s %63s %511s", mountpoint, type, options) != 3)
            continue;
        walk.version = version_of(type, options);
        if (walk.version != NULL)
            descend(&walk, mountpoint);
    }
    if (file != NULL)
        fclose(file);
    if (ret_short->others == 0)
        return 0;
    ret_short->others--;
    return 1;
}
