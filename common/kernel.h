/*
 * kernel.h: which kernel this host runs.
 */
#ifndef FSW_KERNEL_H
#define FSW_KERNEL_H

#include <stdio.h>
#include <sys/utsname.h>

static inline int fsw_kernel_is_at_least(int major, int minor)
{
    struct utsname host;
    int is_major = 0, is_minor = 0;

    return uname(&host) == 0 && sscanf(host.release, "%d.%d", &is_major, &is_minor) == 2 &&
           (is_major > major || (is_major == major && is_minor >= minor));
}

#endif
