/*
 * desk.h: the Unix socket on which a supervisor takes questions and orders, and the other side of
 * it for the commands.
 *
 *     "status"           → "ok" and lines "name value"
 *     "detach [force]"   → "ok TEXT" or "error TEXT", when it is done
 *     "upgrade PATH"     → the same
 *
 * A question is one packet, and so is its answer. Whoever may open the socket (0600) may ask.
 */
#ifndef FSW_ATTACH_DESK_H
#define FSW_ATTACH_DESK_H

#include <limits.h>
#include <stdint.h>

#include "farswap/error.h"
#include "farswap/params.h"

#define FSW_DESK_GUESTS 4 /* at once; more wait in the socket's queue */
#define FSW_DESK_QUESTION (PATH_MAX + 16)
#define FSW_DESK_ANSWER 8192

struct fsw_desk {
    int lock, listener;
    char path[PATH_MAX];
    struct {
        int fd;    /* -1: nobody */
        int waits; /* for the end of its order */
        uint64_t since;
    } guests[FSW_DESK_GUESTS];
};

/* Becomes the supervisor of name: -EBUSY if there is one. */
int fsw_desk_open(struct fsw_desk *desk, const char *name, struct fsw_error *err);

/* Removes the socket. */
void fsw_desk_close(struct fsw_desk *desk);

/* Lets guests in and out. 1 and a guest's question if there is one, with the guest's number. Does
 * not block. */
int fsw_desk_question(struct fsw_desk *desk, unsigned *ret_guest, char question[FSW_DESK_QUESTION]);

/* Answers, and lets the guest go. guest = -1: nobody asked. */
void fsw_desk_answer(struct fsw_desk *desk, int guest, const char *answer);

/* The guest stays until the answer. */
void fsw_desk_keep(struct fsw_desk *desk, unsigned guest);

/* For the commands: asks name's supervisor and waits for the answer, seconds at most. -ENOENT: there
 * is none. */
int fsw_desk_ask(const char *name, const char *question, unsigned seconds,
                 char answer[FSW_DESK_ANSWER], struct fsw_error *err);

#endif
