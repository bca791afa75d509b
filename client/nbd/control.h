/*
 * control.h: what server and supervisor say to each other over an inherited socket (SOCK_SEQPACKET),
 * one line of text a message.
 *
 *      server to supervisor    waiting                                     --wait: for the image
 *                              ready size=BYTES device=HEX32 recovered=0|1
 *                              failed TEXT                                 and exits 1
 *                              serving                                     the socket is served
 *                              closed                                      it has ended
 *      supervisor to server    serve, with a socket as SCM_RIGHTS
 */
#ifndef FSW_NBD_CONTROL_H
#define FSW_NBD_CONTROL_H

#include "farswap/device.h"

#define FSW_CONTROL_BYTES 512u

/* All say nothing where fd is -1; that nobody listens is no error. */
void fsw_control_waiting(int fd);
void fsw_control_ready(int fd, const struct fsw_device *device);
void fsw_control_failed(int fd, const char *text);
void fsw_control_serving(int fd);
void fsw_control_closed(int fd);

/* One message. 1: a socket to serve, *ret_socket; 0: something that this server does not know, or
 * nothing; -EPIPE: the supervisor has gone. Does not block. */
int fsw_control_receive(int fd, int *ret_socket);

#endif
