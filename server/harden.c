/*
 * harden.c: each right is asked for, and its absence told.
 */
#include "server/harden.h"

#include <errno.h>
#include <linux/capability.h>
#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/parse.h"
#include "server/pressure.h"

/* From this size on memory is a mapping of its own, which goes when it is freed; by default glibc
 * raises that with what it sees. */
#define LARGE_ALLOCATION (64 * 1024)

void fsw_harden(void)
{
    prctl(PR_SET_DUMPABLE, 0);
    signal(SIGPIPE, SIG_IGN);
    mallopt(M_MMAP_THRESHOLD, LARGE_ALLOCATION);
}

static bool may_lock_anything(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

    return syscall(SYS_capget, &header, data) == 0 &&
           (data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK)) != 0;
}

static bool may_lock(void)
{
    struct rlimit limit;

    return may_lock_anything() ||
           (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY);
}

int fsw_lock_memory(void)
{
    if (!may_lock())
        return -EPERM;
    return mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0 ? -errno : 0;
}

uint64_t fsw_own_memory(void)
{
    unsigned long long kib = 0;
    char line[128];
    FILE *file = fopen("/proc/self/status", "re");

    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "RssAnon: %llu kB", &kib) == 1)
            break;
    fclose(file);
    return kib << 10;
}

int fsw_check_memory(uint64_t wanted, struct fsw_error *err)
{
    uint64_t available = fsw_meminfo("MemAvailable");
    char have[FSW_SIZE_TEXT], want[FSW_SIZE_TEXT];

    if (available >= wanted)
        return 0;
    return fsw_error(err, -ENOMEM,
                     "--memory %s is more than this host has available (%s): values will be "
                     "refused before that, as long as --keep-available is not 0",
                     fsw_format_size(wanted, want), fsw_format_size(available, have));
}

void fsw_raise_open_files(unsigned wanted)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    setrlimit(RLIMIT_NOFILE, &limit);
}
