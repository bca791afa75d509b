/*
 * notify.h: tells the service manager, by the datagram protocol of sd_notify(3).
 */
#ifndef FSW_ATTACH_NOTIFY_H
#define FSW_ATTACH_NOTIFY_H

/* "READY=1" and the like; nothing if NOTIFY_SOCKET isn't set. Never waits. */
void fsw_notify(const char *text);

#endif
