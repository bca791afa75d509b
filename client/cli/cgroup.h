/*
 * cgroup.h: memory cgroups that are too small for what they have swapped out.
 *
 * A page that swapoff brings back is charged to the cgroup it was swapped out of. When that is at its
 * limit the kernel does not let swapoff fail: it kills processes of the cgroup, however much RAM the
 * host has. So it is looked at before.
 */
#ifndef FSW_CLI_CGROUP_H
#define FSW_CLI_CGROUP_H

#include <limits.h>
#include <stdint.h>

struct cgroup_short {
    char limit[PATH_MAX]; /* the file that has its limit */
    uint64_t swapped;     /* bytes that would come back to it */
    uint64_t room;        /* bytes that find a place below its limit */
    uint64_t lack;        /* bytes that find none, here or on other swap */
    unsigned others;      /* cgroups that are too small as well */
};

/* 1 and the cgroup that lacks most, if as much as `most` bytes come back from one swap while
 * `elsewhere` bytes are free on others. Knows cgroup v1 and v2, as far as they are mounted here. */
int cgroup_find_short(uint64_t most, uint64_t elsewhere, struct cgroup_short *ret_short);

#endif
