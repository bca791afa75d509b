/*
 * harden.c: each right is asked for, and its absence told.
 */
#include "server/harden.h"

#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/parse.h"

void fsw_harden(void)
{
    prctl(PR_SET_DUMPABLE, 0);
    signal(SIGPIPE, SIG_IGN);
}

static bool may_lock_anything(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

    return syscall(SYS_capget, &header, data) == 0 &&
           (data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK)) != 0;
}

static bool may_lock(uint64_t wanted)
{
    struct rlimit limit;

    if (may_lock_anything())
        return true;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
        return false;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
           (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > wanted);
}

int fsw_lock_memory(uint64_t wanted, struct fsw_error *err)
{
    if (!may_lock(wanted))
        errno = EPERM;
    else if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0)
        return 0;
    return fsw_error(err, -errno,
                     "can't lock memory (%s): this host may swap the values out, which is slow "
                     "for the hosts that swap on us and leaves their memory on this host's disk; "
                     "give CAP_IPC_LOCK or LimitMEMLOCK=infinity",
                     strerror(errno));
}

int fsw_check_memory(uint64_t wanted, struct fsw_error *err)
{
    FILE *file = fopen("/proc/meminfo", "re");
    unsigned long long available = 0;
    char line[128], have[FSW_SIZE_TEXT], want[FSW_SIZE_TEXT];

    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "MemAvailable: %llu kB", &available) == 1)
            break;
    fclose(file);
    if (available == 0 || available >= wanted >> 10)
        return 0;
    return fsw_error(err, -ENOMEM,
                     "--memory %s is more than this host has available (%s): when values fill it, "
                     "the kernel may kill us, and what other hosts swapped to us is lost",
                     fsw_format_size(wanted, want), fsw_format_size(available << 10, have));
}

void fsw_raise_open_files(unsigned wanted)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    setrlimit(RLIMIT_NOFILE, &limit);
}
