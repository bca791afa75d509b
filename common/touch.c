/*
 * touch.c: the program's mappings as /proc/self/maps has them, one madvise() each.
 *
 * Kernels before 5.14 can't populate a mapping on demand; there code and data are read, which brings
 * in what comes from files, and what is copied on the first write is still to come.
 */
#include "common/touch.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

#define PAGE 4096u

struct mapping {
    uintptr_t from, to;
    char rights[5];
    char name[256]; /* empty: anonymous */
};

static int parse(const char *line, struct mapping *ret_mapping)
{
    unsigned long from, to;

    ret_mapping->name[0] = '\0';
    int n = sscanf(line, "%lx-%lx %4s %*s %*s %*s %255[^\n]", &from, &to, ret_mapping->rights,
                   ret_mapping->name);
    ret_mapping->from = from;
    ret_mapping->to = to;
    return n >= 3 ? 0 : -EINVAL;
}

/* A shared mapping is the image or a device; a file that is only read and is no library is the
 * locale's, and large. */
static int is_wanted(const struct mapping *mapping)
{
    size_t bytes = mapping->to - mapping->from;

    if (mapping->rights[0] != 'r' || mapping->rights[3] != 'p')
        return 0;
    if (mapping->name[0] == '/')
        return strstr(mapping->name, "/locale") == NULL;
    if (strcmp(mapping->name, "[heap]") == 0)
        return 1;
    return mapping->name[0] == '\0' && mapping->rights[1] == 'w' && bytes <= FSW_TOUCH_MAX;
}

static void touch(const struct mapping *mapping)
{
    int advice = mapping->rights[1] == 'w' ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
    int r;

    do
        r = madvise((void *)mapping->from, mapping->to - mapping->from, advice);
    while (r < 0 && (errno == EINTR || errno == EAGAIN));
    if (r == 0 || errno != EINVAL)
        return; /* ENOMEM, EFAULT: gone again, or beyond its file's end */
    for (uintptr_t at = mapping->from; at < mapping->to; at += PAGE)
        (void)*(const volatile char *)at;
}

size_t fsw_touch_program(void)
{
    FILE *file = fopen("/proc/self/maps", "re");
    char line[512];
    struct mapping mapping;
    size_t touched = 0;

    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (parse(line, &mapping) == 0 && is_wanted(&mapping)) {
            touch(&mapping);
            touched += mapping.to - mapping.from;
        }
    fclose(file);
    return touched;
}

__attribute__((noinline)) void fsw_touch_stack(void)
{
    volatile char stack[FSW_TOUCH_STACK];

    for (size_t i = 0; i < sizeof stack; i += PAGE)
        stack[i] = 0;
}

void fsw_touch_keep_heap(void)
{
    mallopt(M_MMAP_THRESHOLD, FSW_TOUCH_PIECE);
    mallopt(M_TRIM_THRESHOLD, 2 * FSW_TOUCH_PIECE);
}

void fsw_touch_heap(size_t bytes)
{
    volatile char *heap = malloc(bytes);

    for (size_t i = 0; heap != NULL && i < bytes; i += PAGE)
        heap[i] = 0;
    free((void *)heap);
}

static void *touch_and_end(void *heap_bytes)
{
    fsw_touch_stack();
    fsw_touch_heap(*(size_t *)heap_bytes);
    return NULL;
}

void fsw_touch_next_thread(size_t heap_bytes)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, touch_and_end, &heap_bytes) == 0)
        pthread_join(thread, NULL);
}
