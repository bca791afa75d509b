/*
 * say.h: lines for people on standard error, and for a supervisor on its control socket. Neither
 * ever waits for who reads: that one may be swapped out onto the device that we serve.
 */
#ifndef FSW_FUSE_SAY_H
#define FSW_FUSE_SAY_H

/* "farswap-fuse: TEXT" and a newline; dropped if it can't be written at once. Neither allocates. */
void fsw_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void fsw_warn(const char *line);

#define FSW_CONTROL_MAX 512

/* One message; fd -1: nobody listens. */
void fsw_control_say(int fd, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
