/*
 * test_store_relay.c: a process a relay, and one more for each connection.
 */
#include "test_store_relay.h"

#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test_store_server.h"

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        _exit(1);
    return fd;
}

static void pass(int from, int to, unsigned later_ms)
{
    static char bytes[1 << 20];
    ssize_t n = recv(from, bytes, sizeof bytes, 0);

    if (n <= 0)
        _exit(0);
    usleep(later_ms * 1000);
    for (ssize_t done = 0, sent; done < n; done += sent)
        if ((sent = send(to, bytes + done, (size_t)(n - done), MSG_NOSIGNAL)) < 0)
            _exit(0);
}

/* One connection. */
static void relay(int client, const char *path, unsigned later_ms)
{
    struct pollfd fds[2] = {{.fd = client, .events = POLLIN},
                            {.fd = connect_to(path), .events = POLLIN}};

    while (poll(fds, 2, -1) > 0)
        for (unsigned i = 0; i < 2; i++)
            if (fds[i].revents != 0)
                pass(fds[i].fd, fds[!i].fd, i == 1 ? later_ms : 0);
    _exit(1);
}

pid_t relay_start(const char *socket_path, unsigned later_ms, int *ret_port)
{
    int listener = listen_on(ret_port);
    pid_t child = fork();

    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGCHLD, SIG_IGN);
        for (;;) {
            int client = accept(listener, NULL, NULL);
            if (client >= 0 && fork() == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                relay(client, socket_path, later_ms);
            }
            close(client);
        }
    }
    close(listener);
    return child;
}

void relay_stop(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
