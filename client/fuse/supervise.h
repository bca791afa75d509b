/*
 * supervise.h: the process that keeps the mount while servers come and go.
 *
 * It holds the mount's descriptors and serves nothing itself. One server serves; a second one, the
 * spare, was executed, has its buffers and its memory locked, and waits for the image's lock. When
 * the server dies, the kernel lets go of the lock, and the spare goes on: it opens the image, asks
 * the kernel for all requests that were not answered (FUSE_NOTIFY_RESEND, Linux 6.9), and answers
 * them. The supervisor then starts the next spare. Nothing of this waits for the supervisor, so it
 * may itself be killed: what it started goes on, without a spare after the next death. Another one that
 * is started for the same mount takes the server as its own (adopt.h).
 *
 *   server → supervisor (SOCK_SEQPACKET, a line each, at most 512 bytes):
 *     "waiting"                         ready to take the image
 *     "ready size=BYTES recovered=0|1"  has it, and serves
 *     "failed TEXT"                     and exits 1
 */
#ifndef FSW_FUSE_SUPERVISE_H
#define FSW_FUSE_SUPERVISE_H

/* arguments: MOUNTPOINT NAME key=value..., for each server, up to a NULL; name is the device's.
 * Returns the exit status once the mount is gone: 0, or 1 if the first server could not start. */
int fsw_supervise(const char *name, const char *const *arguments);

#endif
