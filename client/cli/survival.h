/*
 * survival.h: what a crash of the server costs a device that farswap-fuse serves. Over nbd, or
 * with nobody serving, there is nothing to say.
 */
#ifndef FSW_CLI_SURVIVAL_H
#define FSW_CLI_SURVIVAL_H

#include "core/registry.h"

enum survival {
    SURVIVAL_UNKNOWN,    /* not served by a farswap-fuse that can be seen from here */
    SURVIVAL_SURE,       /* its supervisor watches, and the kernel can ask again */
    SURVIVAL_ONCE,       /* the supervisor is gone, and left a spare */
    SURVIVAL_ALONE,      /* no supervisor, no spare */
    SURVIVAL_OLD_KERNEL, /* before 6.9 */
};

/* pid: of the server, from the image. Reads /proc only: never waits for anybody. */
enum survival survival_of(const struct fsw_record *record, int pid);

/* A crash loses the swap, or the one after it does. */
int survival_is_bad(enum survival survival);

/* Another supervisor would mend it. */
int survival_can_be_had(enum survival survival);

/* What it means and what to do, for people; "" where that is nothing. */
const char *survival_text(enum survival survival);

/* FUSE can ask for unanswered requests again since Linux 6.9. */
int survival_kernel_asks_again(void);

#endif
