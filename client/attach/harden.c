/*
 * harden.c: a heap that is never given back, a stack that is there, and everything locked.
 *
 * What it costs: some 5 MiB, most of it libc's. libnl takes a few pages a command from the heap and
 * gives them back; the heap was made once, larger than that, so malloc() asks the kernel for nothing
 * later on.
 */
#include "client/attach/harden.h"

#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "client/attach/say.h"
#include "common/rights.h"

#define HEAP (1u << 20)
#define STACK (256u << 10)

void fsw_harden_heap(void)
{
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
    mallopt(M_TOP_PAD, HEAP);
}

static void touch_heap(void)
{
    volatile char *heap = malloc(HEAP);

    for (size_t i = 0; heap != NULL && i < HEAP; i += 4096)
        heap[i] = 1;
    free((void *)heap);
}

static __attribute__((noinline)) void touch_stack(void)
{
    volatile char stack[STACK];

    for (size_t i = 0; i < sizeof stack; i += 4096)
        stack[i] = 1;
}

static void warn(const char *line)
{
    fsw_say("warning: %s", line);
}

void fsw_harden(int all)
{
    fsw_rights_check(warn);
    fsw_rights_take();
    if (all)
        mlockall(MCL_CURRENT | MCL_FUTURE);
    touch_heap();
    touch_stack();
}

void fsw_harden_urgent(void)
{
    const struct sched_param least = {.sched_priority = sched_get_priority_min(SCHED_RR)};

    if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &least) < 0)
        fsw_say(
            "warning: no real-time priority (CAP_SYS_NICE): when the host is out of memory, this "
            "process may wait for the swap that it is to bring back: %s",
            strerror(errno));
}
