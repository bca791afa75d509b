/*
 * priority.h: the lowest real-time priority, while the host is short of memory.
 *
 * The kernel lets a real-time thread go below the watermark at which others wait for memory. A swap
 * server's threads often are what they wait for, and need a few pages for a frame or a reply (tried:
 * without it a host out of memory stands still for good; the page that was missing was the reply's).
 * But a real-time thread also takes the CPU from the client at each request that comes, so that no
 * two are done together: half the small requests a second on two CPUs. So it is taken while less
 * memory is available than a sixteenth of all (256 MiB at least), and let go at twice that.
 */
#ifndef FSW_PRIORITY_H
#define FSW_PRIORITY_H

/* The calling thread's, and that of all it starts, from now on. -EPERM. */
int fsw_priority_raise(void);

/* The calling thread's is the ordinary one again, for now. */
void fsw_priority_put_off(void);

/* 1 if this process may. */
int fsw_priority_may_raise(void);

/* 1 while it is raised, so memory is short, or was at the last look. */
int fsw_priority_is_raised(void);

/* After fsw_priority_raise: raises or lowers all threads of the process, as memory has become short
 * or not; nothing otherwise. To be called some times a second; reads a file of the kernel's, and
 * allocates when it changes something. One caller at a time. */
void fsw_priority_follow_memory(void);

#endif
