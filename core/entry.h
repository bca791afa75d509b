/*
 * entry.h: the 64 bits that say where a page is now.
 *
 *      63..62  61    60        59..52  51..0
 *      state   lock  overflow  age     where
 *
 *      EMPTY   the whole value is 0: never written, discarded, or all zero
 *      SAME    where = the 32-bit word that fills the page, 20 bits that check it; age 0
 *      POOL    where = location in the pool (40 bits, units of 16 bytes) and length (9 bits, same)
 *      STORE   where = row (31 bits), offset in the segment (12 bits), length (9 bits)
 *
 * The length is here and not only in the object's header so that table and zspage map alone rebuild
 * the pool: a damaged header costs its page and never the layout.
 *
 * The entry is where requests meet (the linearisation point):
 *   E1  Only the holder of the lock bit changes a locked entry; every other change is one
 *       compare-and-swap of an unlocked value.
 *   E2  Who replaces an entry retires what it named, once: unless the overflow bit was set; then
 *       the evictor that set it frees the object when its put ends.
 *   E3  While the overflow bit is set, or the lock bit is held, the object stays where it is.
 */
#ifndef FSW_ENTRY_H
#define FSW_ENTRY_H

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t fsw_entry;

enum fsw_entry_state { FSW_EMPTY, FSW_SAME, FSW_POOL, FSW_STORE };

#define FSW_ENTRY_LOCK (1ull << 61)
#define FSW_ENTRY_OVERFLOW (1ull << 60)
#define FSW_ENTRY_AGE_SHIFT 52
#define FSW_ENTRY_AGE (0xffull << FSW_ENTRY_AGE_SHIFT)
#define FSW_ENTRY_WHERE ((1ull << 52) - 1)

/* Sizes and places are counted in units of 16 bytes. */
#define FSW_UNIT 16u
#define FSW_LENGTH_BITS 9
#define FSW_LENGTH_MASK ((1u << FSW_LENGTH_BITS) - 1)
#define FSW_OFFSET_BITS 12

static inline enum fsw_entry_state fsw_entry_state(uint64_t value)
{
    return (enum fsw_entry_state)(value >> 62);
}

static inline uint8_t fsw_entry_age(uint64_t value)
{
    return (uint8_t)(value >> FSW_ENTRY_AGE_SHIFT);
}

static inline uint64_t fsw_entry_with_age(uint64_t value, uint8_t age)
{
    return (value & ~FSW_ENTRY_AGE) | (uint64_t)age << FSW_ENTRY_AGE_SHIFT;
}

/* No object's checksum proves the word, so the entry does: any one bit that falls over shows. */
static inline uint64_t fsw_entry_same(uint32_t word)
{
    uint64_t check = (word * 0x9e3779b1u ^ 0xa5a5a5a5u) >> 12;
    return (uint64_t)FSW_SAME << 62 | check << 32 | word;
}

/* A page whose entry was damaged, as recovery leaves it: the check fits no word, so that its readers
 * get -EIO until it is written anew, and it names nothing. */
#define FSW_ENTRY_LOST ((uint64_t)FSW_SAME << 62 | 0x5a5a5ull << 32)

static inline uint64_t fsw_entry_pool(uint64_t location, unsigned units, uint8_t age)
{
    return (uint64_t)FSW_POOL << 62 | (uint64_t)age << FSW_ENTRY_AGE_SHIFT |
           location << FSW_LENGTH_BITS | units;
}

static inline uint64_t fsw_entry_store(uint32_t row, unsigned offset_units, unsigned units)
{
    return (uint64_t)FSW_STORE << 62 | (uint64_t)row << (FSW_OFFSET_BITS + FSW_LENGTH_BITS) |
           (uint64_t)offset_units << FSW_LENGTH_BITS | units;
}

/* The object's length in units, header included (POOL and STORE). */
static inline unsigned fsw_entry_units(uint64_t value)
{
    return (unsigned)(value & FSW_LENGTH_MASK);
}

static inline uint64_t fsw_entry_location(uint64_t value)
{
    return (value & FSW_ENTRY_WHERE) >> FSW_LENGTH_BITS & ((1ull << 40) - 1);
}

static inline uint32_t fsw_entry_row(uint64_t value)
{
    return (uint32_t)((value & FSW_ENTRY_WHERE) >> (FSW_OFFSET_BITS + FSW_LENGTH_BITS));
}

static inline unsigned fsw_entry_offset_units(uint64_t value)
{
    return (unsigned)(value >> FSW_LENGTH_BITS) & ((1u << FSW_OFFSET_BITS) - 1);
}

static inline uint32_t fsw_entry_word(uint64_t value)
{
    return (uint32_t)value;
}

/* 1 if the value is a whole EMPTY or SAME one; 0 if it is damaged (or says POOL or STORE). */
static inline int fsw_entry_is_word(uint64_t value)
{
    return value == 0 || value == fsw_entry_same(fsw_entry_word(value));
}

/* Same place of the same kind, whatever the age: what a flip compares. */
static inline int fsw_entry_same_place(uint64_t a, uint64_t b)
{
    uint64_t ignored = FSW_ENTRY_AGE;
    return (a & ~ignored) == (b & ~ignored);
}

/* Holders copy one object, a few hundred nanoseconds; but a holder can lose its CPU. */
static inline void fsw_entry_pause(unsigned *spins)
{
    if (++*spins % 64 == 0)
        sched_yield();
    else
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#else
        atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Waits for the lock bit, sets it, returns the value without it. */
static inline uint64_t fsw_entry_lock(fsw_entry *entry)
{
    unsigned spins = 0;
    for (;;) {
        uint64_t value = atomic_load_explicit(entry, memory_order_relaxed);
        if (value & FSW_ENTRY_LOCK)
            fsw_entry_pause(&spins);
        else if (atomic_compare_exchange_weak_explicit(entry, &value, value | FSW_ENTRY_LOCK,
                                                       memory_order_acquire, memory_order_relaxed))
            return value;
    }
}

/* The holder's: publishes value, which must not have the lock bit. */
static inline void fsw_entry_unlock(fsw_entry *entry, uint64_t value)
{
    atomic_store_explicit(entry, value, memory_order_release);
}

/* Replaces whatever is there by value, as soon as it is unlocked; returns what was there. */
static inline uint64_t fsw_entry_exchange(fsw_entry *entry, uint64_t value)
{
    unsigned spins = 0;
    for (;;) {
        uint64_t old = atomic_load_explicit(entry, memory_order_relaxed);
        if (old & FSW_ENTRY_LOCK)
            fsw_entry_pause(&spins);
        else if (atomic_compare_exchange_weak_explicit(entry, &old, value, memory_order_acq_rel,
                                                       memory_order_relaxed))
            return old;
    }
}

/* The value once nobody holds it. */
static inline uint64_t fsw_entry_load(fsw_entry *entry)
{
    unsigned spins = 0;
    for (;;) {
        uint64_t value = atomic_load_explicit(entry, memory_order_acquire);
        if (!(value & FSW_ENTRY_LOCK))
            return value;
        fsw_entry_pause(&spins);
    }
}

#endif
