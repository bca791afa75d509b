/*
 * cleanup.h: locks and memory released by scope (after nbdkit's common/utils/cleanup.h).
 */
#ifndef FSW_CLEANUP_H
#define FSW_CLEANUP_H

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static inline void fsw_cleanup_free(void *p)
{
    free(*(void **)p);
}

static inline void fsw_cleanup_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void fsw_cleanup_unlock(pthread_mutex_t **mutex)
{
    if (*mutex != NULL)
        pthread_mutex_unlock(*mutex);
}

#define FSW_CLEANUP_FREE __attribute__((cleanup(fsw_cleanup_free)))
#define FSW_CLEANUP_CLOSE __attribute__((cleanup(fsw_cleanup_close)))

#define FSW_CONCAT_(a, b) a##b
#define FSW_CONCAT(a, b) FSW_CONCAT_(a, b)

/* Locks here, unlocks where the enclosing scope ends. */
#define FSW_LOCK_SCOPE(mutex)                                                                      \
    __attribute__((cleanup(fsw_cleanup_unlock), unused)) pthread_mutex_t *FSW_CONCAT(              \
        fsw_scope_, __LINE__) = (pthread_mutex_lock(mutex), (mutex))

#endif
