/*
 * say.h: lines on standard error, written by a thread of their own.
 *
 * Whoever reads them, a journal or a terminal, may itself be swapped out onto the device that has no
 * server right now; and a pipe needs memory from the kernel. So whoever has something to say leaves
 * it in a ring and goes on. A line for which there is no room is dropped; --status tells the state
 * in any case.
 */
#ifndef FSW_ATTACH_SAY_H
#define FSW_ATTACH_SAY_H

/* Everything said later begins with "farswap-attach: NAME: ". */
void fsw_say_name(const char *name);

/* From now on lines are left to the thread; before, they are written at once. 0 or negative errno. */
int fsw_say_start(void);

/* Writes what is left, and waits for that for a second at most: before the process ends. */
void fsw_say_finish(void);

/* One line. Neither allocates nor blocks (after fsw_say_start). From any thread. */
void fsw_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
