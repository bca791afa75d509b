/*
 * rights.h: what a swap server must be allowed to do, so that it never waits for its own swap.
 *
 * A right that is missing is a warning that says what it risks, never an error: tests and small
 * uses work without.
 */
#ifndef FSW_RIGHTS_H
#define FSW_RIGHTS_H

/* Calls warn with one line for each right that is missing. Changes nothing for good: for the start
 * of a program, before it forks, where a message is still seen. */
void fsw_rights_check(void (*warn)(const char *line));

/* Locks present and future memory as it is touched (MCL_ONFAULT), sets PR_SET_IO_FLUSHER, the OOM
 * score, and the lowest real-time priority (common/priority.h), and touches the program (touch.h),
 * with its heap made to keep what it has. For the calling thread and those it starts from then on;
 * after any fork, since none of it is inherited by every path. Returns how many of the four were
 * refused. */
int fsw_rights_take(void);

/* For a process that is not needed yet, while it gets what it will need: the calling thread asks
 * for memory as anybody does, and takes none of what is kept back for who is needed. Ended by
 * fsw_rights_take. A process inherits both flag and priority from who started it. */
void fsw_rights_put_off(void);

/* 1 while zswap is on: it would compress every page before we do, and keep what it can. */
int fsw_zswap_in_front(void);

#endif
