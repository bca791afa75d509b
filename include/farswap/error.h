/*
 * error.h: how a call that a person set off says what went wrong.
 *
 * Functions return 0 or a negative errno, passed on unchanged. Where a person waits for the answer
 * (start of a program, a command), the function also takes a struct fsw_error and leaves one line
 * in it: what was wrong, what is allowed, what to do. Libraries never print; the program does,
 * once.
 */
#ifndef FARSWAP_ERROR_H
#define FARSWAP_ERROR_H

struct fsw_error {
    char text[768]; /* one line, no newline; "" if nothing was said */
};

/* Formats into err (which may be NULL) and returns code, so that a failure is one statement:
 *     return fsw_error(err, -EINVAL, "size=%s is not a multiple of 4096", text);
 * Neither blocks nor allocates. */
int fsw_error(struct fsw_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* One thing more, behind what is there and a semicolon: for calls that succeed and have something to
 * say. What does not fit is cut. Neither blocks nor allocates. */
void fsw_error_add(struct fsw_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
