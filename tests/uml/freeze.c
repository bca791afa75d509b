/*
 * freeze: stops a process for a while, as a debugger or a hypervisor would.
 *
 *     freeze PID MILLISECONDS
 *
 * SIGSTOP, a pause, SIGCONT. Locked in memory: while a swap server stands still, nobody who needs
 * swap comes back to let it go on. Exit status 1: there is no such process.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc != 3) {
        fputs("usage: freeze PID MILLISECONDS\n", stderr);
        return 2;
    }
    pid_t pid = (pid_t)strtol(argv[1], NULL, 10);
    useconds_t pause = (useconds_t)strtoul(argv[2], NULL, 10) * 1000;
    if (pid <= 0 || mlockall(MCL_CURRENT | MCL_FUTURE) < 0 || kill(pid, SIGSTOP) < 0) {
        fprintf(stderr, "freeze: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    usleep(pause);
    kill(pid, SIGCONT);
    return 0;
}
