/*
 * rights.c: memory locks, the I/O flusher flag, the OOM score, the scheduling class.
 */
#include "common/rights.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/priority.h"
#include "common/touch.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif

/* Never: with the server the kernel would end every process whose pages it holds. */
#define OOM_SCORE "-1000"

static int set_oom_score(const char *score)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, score, strlen(score));
    close(fd);
    return n < 0 ? -1 : 0;
}

static void get_oom_score(char score[16])
{
    int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, score, 15);
    if (fd >= 0)
        close(fd);
    score[n > 0 ? n : 0] = '\0';
}

/* CAP_IPC_LOCK is effective. Who we are says nothing: root in a container may lack it. */
static int has_ipc_lock(void)
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
    return effective >> CAP_IPC_LOCK & 1;
}

/* A try would lie: the kernel looks at the limit only when there is something to lock. */
static int may_lock_memory(void)
{
    struct rlimit limit;

    return has_ipc_lock() ||
           (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY);
}

static int may_flush(void)
{
    int before = prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0);

    if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
        return 0;
    if (before == 0)
        prctl(PR_SET_IO_FLUSHER, 0, 0, 0, 0);
    return 1;
}

static int may_score(void)
{
    char before[16];

    get_oom_score(before);
    if (set_oom_score(OOM_SCORE) < 0)
        return 0;
    set_oom_score(before);
    return 1;
}

int fsw_zswap_in_front(void)
{
    char state = 'N';
    int fd = open("/sys/module/zswap/parameters/enabled", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    if (read(fd, &state, 1) != 1)
        state = 'N';
    close(fd);
    return state == 'Y';
}

void fsw_rights_check(void (*warn)(const char *line))
{
    if (!may_lock_memory())
        warn("can't lock memory (CAP_IPC_LOCK, or ulimit -l unlimited): the server itself may be "
             "swapped "
             "out to the device it serves, and hang the host");
    if (!may_flush())
        warn("can't set PR_SET_IO_FLUSHER (CAP_SYS_RESOURCE): when memory is short, an allocation "
             "of the "
             "server may wait for the swap it serves");
    if (!may_score())
        warn("can't lower oom_score_adj (CAP_SYS_RESOURCE): the kernel may kill the server to free "
             "memory, "
             "and every swapped process with it");
    if (!fsw_priority_may_raise())
        warn("can't take real-time priority (CAP_SYS_NICE): when memory is short, the server may "
             "wait "
             "for memory that only it could free");
    if (fsw_zswap_in_front())
        warn("zswap is on and compresses every page before it gets here: echo N > "
             "/sys/module/zswap/parameters/enabled");
}

void fsw_rights_put_off(void)
{
    prctl(PR_SET_IO_FLUSHER, 0, 0, 0, 0);
    fsw_priority_put_off();
}

int fsw_rights_take(void)
{
    int refused = 0;

    fsw_touch_keep_heap();
    refused += mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0;
    refused += prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0;
    refused += set_oom_score(OOM_SCORE) < 0;
    refused += fsw_priority_raise() < 0;
    fsw_touch_program();
    fsw_touch_stack();
    return refused;
}
