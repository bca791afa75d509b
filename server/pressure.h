/*
 * pressure.h: whether this host has memory to give away.
 *
 * Two signs, both of the host as a whole:
 *
 *      MemAvailable below `keep`                                      -> short
 *      tasks stalled for memory (PSI, a sixteenth of the time) while
 *      MemAvailable is below 4 * keep                                 -> short
 *
 * Stalls alone say nothing: a program in a memory cgroup stalls on a host that has plenty, and one
 * that swaps on us does it all the time. Once short, the host is so until MemAvailable was above
 * keep and a quarter more, without stalls, for FSW_CALM_SECONDS: else we would take what was just
 * freed and be short again.
 *
 * The logic is pure; look() reads /proc, or the folder that $FARSWAPD_PROC names. One thread.
 */
#ifndef FSW_SERVER_PRESSURE_H
#define FSW_SERVER_PRESSURE_H

#include <stdbool.h>
#include <stdint.h>

#define FSW_CALM_SECONDS 5
/* A PSI trigger of this fires at once; others than CAP_SYS_RESOURCE may only have windows that are
 * multiples of 2 s. */
#define FSW_STALL_WINDOW_US 2000000
#define FSW_STALL_US (FSW_STALL_WINDOW_US / 16)

struct fsw_pressure {
    uint64_t keep;      /* 0: the host's memory is not looked at */
    bool short_of;      /* nothing new may be taken */
    bool stalled;       /* at the last look */
    uint64_t available; /* at the last look; UINT64_MAX: unknown */
    uint64_t stall_us;  /* PSI's total at the last look */
    uint64_t looked_ns; /* 0: not yet */
    uint64_t calm_ns;   /* since when; 0: not */
    uint64_t times;     /* that it became short */
    uint64_t triggers;  /* that PSI's trigger fired */
};

/* What a host keeps for itself unless told otherwise: 5 % of its memory, 1 GiB at most. */
uint64_t fsw_pressure_keep_default(void);

/* One look's figures. available UINT64_MAX, stall_us 0: not known. triggered: PSI said so. */
void fsw_pressure_step(struct fsw_pressure *pressure, uint64_t now_ns, uint64_t available,
                       uint64_t stall_us, bool triggered);

/* Reads, and steps. Blocks for some microseconds. */
void fsw_pressure_look(struct fsw_pressure *pressure, bool triggered);

/* A descriptor that has POLLPRI when tasks stalled, or negative errno: no PSI, or no right. */
int fsw_pressure_trigger(void);

/* MemAvailable or MemTotal, bytes; UINT64_MAX: unknown. */
uint64_t fsw_meminfo(const char *field);

#endif
