/*
 * say.c: formatted on the stack, written in one piece.
 */
#include "client/fuse/say.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

void fsw_say(const char *format, ...)
{
    struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
    char line[1024] = "farswap-fuse: ";
    size_t used = sizeof "farswap-fuse: " - 1;
    va_list arguments;

    va_start(arguments, format);
    int n = vsnprintf(line + used, sizeof line - used - 1, format, arguments);
    va_end(arguments);
    used += n < 0 ? 0 : (size_t)n;
    if (used > sizeof line - 2)
        used = sizeof line - 2;
    line[used++] = '\n';
    if (poll(&ready, 1, 0) == 1 && (ready.revents & POLLOUT))
        (void)!write(STDERR_FILENO, line, used);
}

void fsw_warn(const char *line)
{
    fsw_say("warning: %s", line);
}

void fsw_control_say(int fd, const char *format, ...)
{
    char text[FSW_CONTROL_MAX];
    va_list arguments;

    if (fd < 0)
        return;
    va_start(arguments, format);
    int n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (n > 0)
        send(fd, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1,
             MSG_DONTWAIT | MSG_NOSIGNAL);
}
