/*
 * value.h: bytes that several may hold: an argument of a request, a value in the keyspace, a piece
 * of a reply that the kernel has not taken yet.
 *
 * A value is filled once, by whoever made it, and never changes afterwards. Holders count
 * themselves; the last one to let go frees. So SET puts the very bytes that the parser read into
 * the keyspace, GET sends them from there, and a DEL in between harms nobody. One thread.
 *
 * Small ones are the allocator's; large ones, and all that the keyspace holds, lie in a slot of the
 * donor's image (server/vault.h).
 */
#ifndef FSW_SERVER_VALUE_H
#define FSW_SERVER_VALUE_H

#include <stddef.h>
#include <stdint.h>

struct fsw_vault;

struct fsw_value {
    char *bytes; /* with a NUL behind them, not counted, if the value is the allocator's */
    struct fsw_vault *vault; /* NULL: the allocator's */
    uint32_t holders;
    uint32_t length;
};

/* One holder: the caller. NULL when there is no memory or length is over 1 GiB. */
struct fsw_value *fsw_value_new(size_t length);
struct fsw_value *fsw_value_hold(struct fsw_value *value);
/* NULL is fine. */
void fsw_value_release(struct fsw_value *value);

/* What it takes from the allocator, the allocator's own word included; 0 if nothing. */
size_t fsw_value_cost(const struct fsw_value *value);
/* The cost of all values there are in this process. */
uint64_t fsw_value_cost_of_all(void);

#endif
