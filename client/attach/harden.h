/*
 * harden.h: the process's memory, so that nothing it does later waits for swap.
 */
#ifndef FSW_ATTACH_HARDEN_H
#define FSW_ATTACH_HARDEN_H

/* Before threads and libraries: how the heap behaves. */
void fsw_harden_heap(void);

/* Takes the rights (common/rights.h), locks all that is mapped and will be, and touches stack and
 * heap. all = 0: only what is touched is locked, for a process with large libraries. */
void fsw_harden(int all);

/* The calling thread gets the kernel's memory before others do: a real-time thread may take of what
 * is kept back from ordinary ones. Its priority is the lowest there is, and children don't inherit
 * it. A warning if it is refused. */
void fsw_harden_urgent(void);

#endif
