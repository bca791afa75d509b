/*
 * say.c: lines for people, dropped rather than waited for.
 */
#include "client/attach/say.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "farswap/params.h"

static char prefix[32 + FSW_NAME_MAX] = "farswap-attach: ";

void fsw_say_name(const char *name)
{
    snprintf(prefix, sizeof prefix, "farswap-attach: %.*s: ", FSW_NAME_MAX, name);
}

/* A pipe that polls as writable takes PIPE_BUF bytes at once; a socket is asked not to wait. */
static void write_soon(const char *text, size_t length)
{
    struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};

    if (send(STDERR_FILENO, text, length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno != ENOTSOCK)
        return;
    if (poll(&out, 1, 0) == 1 && (out.revents & POLLOUT) != 0 &&
        write(STDERR_FILENO, text, length) < 0)
        return;
}

void fsw_say(const char *format, ...)
{
    char line[1024];
    va_list arguments;
    int n = snprintf(line, sizeof line, "%s", prefix);

    va_start(arguments, format);
    n += vsnprintf(line + n, sizeof line - (size_t)n, format, arguments);
    va_end(arguments);
    if (n > (int)sizeof line - 2)
        n = (int)sizeof line - 2;
    line[n++] = '\n';
    write_soon(line, (size_t)n);
}
