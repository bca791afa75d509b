/*
 * test_store_relay.h: a long way to a server: what it answers comes later.
 */
#ifndef FSW_TEST_STORE_RELAY_H
#define FSW_TEST_STORE_RELAY_H

#include <sys/types.h>

/* A process that listens on a loopback port, for a server's Unix socket behind it, and brings each answer
 * so much later. Dies with the test. */
pid_t relay_start(const char *socket_path, unsigned later_ms, int *ret_port);
void relay_stop(pid_t relay);

#endif
