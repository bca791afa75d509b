/*
 * touch.h: memory that a server will need is there before it is needed.
 *
 * Locking as memory is touched (MCL_ONFAULT) locks nothing that was not. What a thread touches first
 * while the host is out of memory, a page of code or of its stack, it has to wait for, and if the
 * host waits for that thread to take its pages, both wait for ever. So it is touched at the start.
 */
#ifndef FSW_TOUCH_H
#define FSW_TOUCH_H

#include <stddef.h>

/* Touches the code and data of the program and of all its libraries, and its private mappings up to
 * FSW_TOUCH_MAX each: heap, lists, contexts. Larger ones are sized for the device or for the worst,
 * and their users touch what they need. Reads /proc/self/maps; allocates, and blocks for as long as
 * the disk takes. Returns the bytes touched. */
#define FSW_TOUCH_MAX (1u << 20)
size_t fsw_touch_program(void);

/* The calling thread's stack, FSW_TOUCH_STACK deeper than here: first thing in a thread. */
#define FSW_TOUCH_STACK (128u << 10)
void fsw_touch_stack(void);

/* Makes the heap keep what it once had, up to twice FSW_TOUCH_PIECE a thread, as long as single
 * pieces are smaller than that. Once, before threads. */
#define FSW_TOUCH_PIECE (2u << 20)
void fsw_touch_keep_heap(void);

/* The calling thread's heap, so that it can give out `bytes` in one piece. After the above. */
void fsw_touch_heap(size_t bytes);

/* The stack and the heap of the next thread that starts in this process, and of others only what they
 * do not find there: glibc keeps those of a thread that has ended for the next one. Blocks while a
 * thread lives and ends; where none can be had, nothing is touched. */
void fsw_touch_next_thread(size_t heap_bytes);

#endif
