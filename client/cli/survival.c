/*
 * survival.c: who watches a farswap-fuse, told by /proc: a supervised server is its supervisor's
 * child, and so is its spare (client/fuse/supervise.h). Children of a supervisor that died are
 * somebody else's; one that comes after it (client/fuse/adopt.h) has the spare alone.
 */
#include "client/cli/survival.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "client/cli/host.h"

#define SERVER "farswap-fuse"

int survival_kernel_asks_again(void)
{
    struct utsname host;
    int major = 0, minor = 0;

    return uname(&host) == 0 && sscanf(host.release, "%d.%d", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 9));
}

/* A farswap-fuse: 1 and its parent. */
static int is_server(int pid, int *ret_parent)
{
    char path[64], line[512], state;
    int found = 0;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fgets(line, sizeof line, file) != NULL) {
        char *name = strchr(line, '('), *end = strrchr(line, ')');
        if (name != NULL && end != NULL && sscanf(end + 1, " %c %d", &state, ret_parent) == 2) {
            *end = '\0';
            found = strcmp(name + 1, SERVER) == 0 && state != 'Z';
        }
    }
    fclose(file);
    return found;
}

/* A word of its command line is the device's name, as farswap-fuse is given it. */
static int is_for(int pid, const char *device)
{
    char path[64], words[4096];
    int found = 0;

    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    size_t n = fread(words, 1, sizeof words - 1, file);
    fclose(file);
    words[n] = '\0';
    for (size_t at = 0; at < n && !found; at += strlen(words + at) + 1)
        found = strcmp(words + at, device) == 0;
    return found;
}

struct others {
    int spare; /* another one of that device */
    int supervised; /* and it has a supervisor, which a server that was there before is watched by, too */
};

static struct others look_for_others(const char *device, int server)
{
    struct others others = {0, 0};
    struct dirent *entry;
    DIR *dir = opendir("/proc");
    int parent, above;

    while (dir != NULL && !others.supervised && (entry = readdir(dir)) != NULL) {
        int pid = atoi(entry->d_name);
        if (pid <= 0 || pid == server || !is_server(pid, &parent) || !is_for(pid, device))
            continue;
        others.spare = 1;
        others.supervised = is_server(parent, &above) && is_for(parent, device);
    }
    if (dir != NULL)
        closedir(dir);
    return others;
}

enum survival survival_of(const struct fsw_record *record, int pid)
{
    int parent, above;

    if (!record->served || !is_server(pid, &parent))
        return SURVIVAL_UNKNOWN;
    if (!survival_kernel_asks_again())
        return SURVIVAL_OLD_KERNEL;
    if (is_server(parent, &above) && is_for(parent, record->name))
        return SURVIVAL_SURE;
    struct others others = look_for_others(record->name, pid);
    return others.supervised ? SURVIVAL_SURE : others.spare ? SURVIVAL_ONCE : SURVIVAL_ALONE;
}

int survival_can_be_had(enum survival survival)
{
    return survival == SURVIVAL_ONCE || survival == SURVIVAL_ALONE;
}

int survival_is_bad(enum survival survival)
{
    return survival > SURVIVAL_SURE;
}

const char *survival_text(enum survival survival)
{
    switch (survival) {
    case SURVIVAL_ONCE:
        return "farswap-fuse has lost its supervisor: it survives one more crash, and the one "
               "after that loses the swap. `farswap up` of its name starts another";
    case SURVIVAL_ALONE:
        return "farswap-fuse runs without a supervisor: if it crashes, what is swapped is lost. "
               "`farswap up` of its name starts one";
    case SURVIVAL_OLD_KERNEL:
        return "this kernel (before 6.9) can't ask a new farswap-fuse for what the old one was "
               "asked: if it crashes, what is swapped is lost. Use nbd (--door nbd), or a newer "
               "kernel";
    case SURVIVAL_UNKNOWN:
    case SURVIVAL_SURE:
    default:
        return "";
    }
}
