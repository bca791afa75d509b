/*
 * control.c: messages to and from the supervisor.
 */
#include "client/nbd/control.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/nudge.h"

static void say(int fd, const char *text)
{
    fsw_nudge_begin();
    if (fd >= 0)
        send(fd, text, strlen(text), MSG_NOSIGNAL); /* it may have gone, or will see that we have */
    fsw_nudge_end();
}

void fsw_control_waiting(int fd)
{
    say(fd, "waiting");
}

void fsw_control_ready(int fd, const struct fsw_device *device)
{
    const struct fsw_device_id *id = fsw_device_id(device);
    char text[FSW_CONTROL_BYTES], hex[FSW_DEVICE_ID_TEXT];

    for (unsigned i = 0; i < sizeof id->bytes; i++)
        snprintf(hex + 2 * i, 3, "%02x", id->bytes[i]);
    snprintf(text, sizeof text, "ready size=%" PRIu64 " device=%s recovered=%d",
             fsw_device_size(device), hex, fsw_device_is_recovered(device, NULL));
    say(fd, text);
}

void fsw_control_failed(int fd, const char *text)
{
    char message[FSW_CONTROL_BYTES];

    snprintf(message, sizeof message, "failed %s", text);
    say(fd, message);
}

void fsw_control_serving(int fd)
{
    say(fd, "serving");
}

void fsw_control_closed(int fd)
{
    say(fd, "closed");
}

/* The socket that came with a message, -1 if none; closes what else came. */
static int take_socket(struct msghdr *message)
{
    int taken = -1, fd;

    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL;
         part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof fd;
        for (size_t i = 0; i < count; i++) {
            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            if (taken < 0)
                taken = fd;
            else
                close(fd);
        }
    }
    return taken;
}

int fsw_control_receive(int fd, int *ret_socket)
{
    char text[FSW_CONTROL_BYTES + 1];
    union {
        char bytes[CMSG_SPACE(4 * sizeof(int))];
        struct cmsghdr align;
    } rights;
    struct iovec iov = {.iov_base = text, .iov_len = FSW_CONTROL_BYTES};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof rights};
    ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return -EPIPE;
    text[n] = '\0';
    int socket = take_socket(&message);
    if (socket >= 0 && strcmp(text, "serve") == 0) {
        *ret_socket = socket;
        return 1;
    }
    if (socket >= 0)
        close(socket);
    return 0;
}
