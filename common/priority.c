/*
 * priority.c: scheduling class of the process, by available memory.
 */
#include "common/priority.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHORT_LEAST_KIB (256ull << 10)
#define SHORT_PART 16u

static _Atomic enum { UNTOUCHED, RAISED, LOWERED } state;

static int set_class(pid_t thread, int raised)
{
    const struct sched_param param = {.sched_priority = raised ? 1 : 0};

    return sched_setscheduler(thread, raised ? SCHED_RR : SCHED_OTHER, &param) < 0 ? -errno : 0;
}

int fsw_priority_raise(void)
{
    int r = set_class(0, 1);

    if (r == 0)
        state = RAISED;
    return r;
}

void fsw_priority_put_off(void)
{
    set_class(0, 0);
}

int fsw_priority_may_raise(void)
{
    struct sched_param before;
    int class = sched_getscheduler(0);

    if (sched_getparam(0, &before) < 0 || set_class(0, 1) < 0)
        return 0;
    sched_setscheduler(0, class, &before);
    return 1;
}

int fsw_priority_is_raised(void)
{
    return atomic_load_explicit(&state, memory_order_relaxed) == RAISED;
}

/* ---- memory ---- */

/* A line of /proc/meminfo in KiB, 0 if it is not there. */
static uint64_t value_of(const char *text, const char *key)
{
    const char *at = strstr(text, key);

    return at == NULL ? 0 : strtoull(at + strlen(key), NULL, 10);
}

/* 1: it is short. Once it is, it takes twice as much to change that. */
static int is_short(int was)
{
    char text[1024];
    int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return 1;
    text[n] = '\0';
    uint64_t least = value_of(text, "MemTotal:") / SHORT_PART;
    if (least < SHORT_LEAST_KIB)
        least = SHORT_LEAST_KIB;
    return value_of(text, "MemAvailable:") < (was ? 2 * least : least);
}

/* ---- threads ---- */

/* All of the process, those that start meanwhile as well (twice: they begin as their makers are). */
static void set_all(int raised)
{
    for (int pass = 0; pass < 2; pass++) {
        DIR *tasks = opendir("/proc/self/task");
        struct dirent *task;

        while (tasks != NULL && (task = readdir(tasks)) != NULL)
            if (task->d_name[0] != '.')
                set_class((pid_t)atoi(task->d_name), raised);
        if (tasks != NULL)
            closedir(tasks);
    }
}

void fsw_priority_follow_memory(void)
{
    if (state == UNTOUCHED || is_short(state == RAISED) == (state == RAISED))
        return;
    state = state == RAISED ? LOWERED : RAISED;
    set_all(state == RAISED);
}
