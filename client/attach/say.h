/*
 * say.h: one line on standard error, without ever waiting for who reads it.
 *
 * A journal or a terminal may itself be swapped out onto the device that has no server right now.
 * A line that can't be written at once is dropped; --status tells the state in any case.
 */
#ifndef FSW_ATTACH_SAY_H
#define FSW_ATTACH_SAY_H

/* Everything said later begins with "farswap-attach: NAME: ". */
void fsw_say_name(const char *name);

/* Does not allocate. From any thread. */
void fsw_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
