/*
 * findings.h: what farswap doctor found, a line each:
 *
 *      ok      what was looked at, and is well
 *      warn    it works, and risks this; do that
 *      FAIL    it will not work; do that
 */
#ifndef FSW_CLI_FINDINGS_H
#define FSW_CLI_FINDINGS_H

#include "client/cli/view.h"

void ok(const char *format, ...) __attribute__((format(printf, 1, 2)));
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* So far, of warn() and fail(). */
unsigned findings_warnings(void);
unsigned findings_failures(void);

/* Begins anew; trouble_only: ok() prints nothing. */
void findings_begin(int trouble_only);

/* 1 and the first number of a file. */
int findings_number(const char *path, long *ret_value);

/* doctor_host.c: rules of memory, rights, doors, knobs. */
void look_at_host(void);

/* doctor_device.c: server, swap, room, store. */
void look_at_device(const struct view *view);

#endif
