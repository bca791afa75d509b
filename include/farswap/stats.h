/*
 * stats.h: every counter and gauge of a device, as one table: `farswap stats` prints it, the docs
 * and exporters are made from it, the image holds its values.
 *
 * A counter only grows while the image lives. A gauge says how it is now. Where zram or zswap count
 * the same thing, the name is theirs (mm_stat, io_stat, bd_stat, /sys/kernel/debug/zswap).
 * Values are kept in stripes in the image and summed by the reader, so that counting costs the data
 * path one uncontended add; a sum read while requests run may be a few requests old.
 */
#ifndef FARSWAP_STATS_H
#define FARSWAP_STATS_H

#include <stdint.h>

/* X(NAME, name, kind, unit, meaning) */
#define FSW_STATS(X)                                                                               \
    X(READS, reads, COUNTER, "requests", "read requests")                                          \
    X(WRITES, writes, COUNTER, "requests", "write requests")                                       \
    X(DISCARDS, discards, COUNTER, "requests", "discard (trim) requests")                          \
    X(ZEROES, zeroes, COUNTER, "requests", "write-zeroes requests")                                \
    X(FLUSHES, flushes, COUNTER, "requests", "flush requests")                                     \
    X(READ_BYTES, read_bytes, COUNTER, "bytes", "bytes read, failed requests not counted")         \
    X(WRITE_BYTES, write_bytes, COUNTER, "bytes", "bytes written, failed requests not counted")    \
    X(DISCARD_BYTES, discard_bytes, COUNTER, "bytes", "bytes discarded or zeroed")                 \
    X(FAILED_READS, failed_reads, COUNTER, "requests", "reads that ended in an error")             \
    X(FAILED_WRITES, failed_writes, COUNTER, "requests",                                           \
      "writes, discards, zeroes that ended in an error; the old pages stay")                       \
    X(PAGES_STORED, pages_stored, GAUGE, "pages", "pages that hold data: pool + same + store")     \
    X(PAGES_POOL, pages_pool, GAUGE, "pages", "pages whose object is in the pool")                 \
    X(PAGES_SAME, same_pages, GAUGE, "pages",                                                      \
      "pages filled with one 32-bit word, kept in the entry (zero pages take no entry)")           \
    X(PAGES_STORE, pages_store, GAUGE, "pages", "pages whose object is in the store (bd_count)")   \
    X(HUGE_PAGES, huge_pages, GAUGE, "pages", "pages in the pool that did not compress")           \
    X(HUGE_PAGES_SINCE, huge_pages_since, COUNTER, "pages",                                        \
      "page writes that did not compress (reject_compress_poor, but they are kept)")               \
    X(ORIG_DATA_SIZE, orig_data_size, GAUGE, "bytes", "pages_stored in bytes")                     \
    X(COMPR_DATA_SIZE, compr_data_size, GAUGE, "bytes",                                            \
      "objects in the pool, with header, in steps of 16 bytes")                                    \
    X(STORE_DATA_SIZE, store_data_size, GAUGE, "bytes",                                            \
      "live objects in the store, with header, in steps of 16 bytes")                              \
    X(STORE_BYTES, store_bytes, GAUGE, "bytes", "segments in the store, dead bytes in them too")   \
    X(SEGMENTS, segments, GAUGE, "segments", "segments in the store")                              \
    X(MEM_USED_TOTAL, mem_used_total, GAUGE, "bytes",                                              \
      "the image's memory in use: superblock, directory, leaves, zspages and their map")           \
    X(MEM_RESERVE, mem_reserve, GAUGE, "bytes", "touched frames that are free")                    \
    X(MEM_LIMIT, mem_limit, GAUGE, "bytes", "memory=: used and reserve never exceed it")           \
    X(MEM_USED_MAX, mem_used_max, GAUGE, "bytes", "the most mem_used_total ever was")              \
    X(TABLE_LEAVES, table_leaves, GAUGE, "frames",                                                 \
      "leaves of the page table (2 MiB of device each)")                                           \
    X(ZSPAGES, zspages, GAUGE, "zspages", "zspages that hold an object")                           \
    X(POOL_FRAMES, pool_frames, GAUGE, "frames", "frames that zspages hold")                       \
    X(RESERVE_MISSES, reserve_misses, COUNTER, "frames",                                           \
      "times that a request found the reserve empty and waited for it")                            \
    X(WRITE_STALLS, write_stalls, COUNTER, "pages", "page writes that waited for reclaim")         \
    X(WRITE_STALL_NS, write_stall_ns, COUNTER, "ns", "time that page writes waited for reclaim")   \
    X(NO_SPACE, no_space, COUNTER, "pages", "page writes refused with ENOSPC (reject_alloc_fail)") \
    X(COMPACT_MOVED, objs_moved, COUNTER, "objects", "objects that compaction moved")              \
    X(PAGES_COMPACTED, pages_compacted, COUNTER, "frames",                                         \
      "frames that came free in zspages while compaction packed them")                             \
    X(LATE_WRITES, late_writes, COUNTER, "pages",                                                  \
      "page writes and discards dropped because who asked was gone")                               \
    X(CORRUPT_PAGES, corrupt_pages, COUNTER, "pages",                                              \
      "objects whose header or checksum did not fit, at each time they were read; and words of "   \
      "the "                                                                                       \
      "image that were damaged when a server took it over")                                        \
    X(RECLAIM_SCANNED, reclaim_scanned, COUNTER, "pages", "objects that the reclaim hand passed")  \
    X(RECLAIM_SECOND_CHANCES, reclaim_second_chances, COUNTER, "pages",                            \
      "objects that were used since the hand last passed, and stay")                               \
    X(OVERFLOW_PAGES, overflow_pages, COUNTER, "pages",                                            \
      "pages moved to the store (written_back_pages)")                                             \
    X(OVERFLOW_BYTES, overflow_bytes, COUNTER, "bytes", "bytes of acknowledged segments")          \
    X(OVERFLOW_SEGMENTS, overflow_segments, COUNTER, "segments", "segments acknowledged")          \
    X(OVERFLOW_RACED, overflow_raced, COUNTER, "pages",                                            \
      "pages rewritten or discarded while their segment was being put")                            \
    X(OVERFLOW_FAILED, overflow_failed, COUNTER, "segments",                                       \
      "puts that failed; their pages stay in the pool")                                            \
    X(STORE_FULL, store_full, COUNTER, "segments",                                                 \
      "of these, puts refused because the store is full")                                          \
    X(FETCH_PAGES, fetch_pages, COUNTER, "pages",                                                  \
      "pages read from the store, by reads that waited for it")                                    \
    X(FETCH_BYTES, fetch_bytes, COUNTER, "bytes", "bytes of objects read from the store")          \
    X(FETCH_RETRIES, fetch_retries, COUNTER, "pages",                                              \
      "reads from the store that were tried again")                                                \
    X(STORE_LOST_PAGES, store_lost_pages, COUNTER, "pages",                                        \
      "reads of pages that a store which answers no longer has, or that was declared lost")        \
    X(STORE_DROPS, store_drops, COUNTER, "segments", "segments dropped from the store")            \
    X(AGE_TICKS, age_ticks, COUNTER, "ticks", "ticks of the age clock")                            \
    X(COPIES_REPAIRED, copies_repaired, COUNTER, "segments",                                       \
      "segments that lacked a copy and were put again")                                            \
    X(SEGMENTS_LACKING, segments_lacking, GAUGE, "segments",                                       \
      "segments that lack a copy, at the last look")                                               \
    X(PAGES_GIVEN_UP, pages_given_up, COUNTER, "pages",                                            \
      "pages that only stores had which were declared lost")                                       \
    X(FETCH_JOINED, fetch_joined, COUNTER, "pages",                                                \
      "of fetch_pages, those that came with another read's get")                                   \
    X(FETCH_TIMEOUTS, fetch_timeouts, COUNTER, "pages",                                            \
      "reads from the store given up because it did not answer in time")                           \
    X(PREFETCHED, prefetched, COUNTER, "objects",                                                  \
      "objects that came from the store behind one that was asked for")                            \
    X(PREFETCH_HITS, prefetch_hits, COUNTER, "pages",                                              \
      "pages read from what had come that way, without waiting for the store")                     \
    X(PREFETCH_WASTED, prefetch_wasted, COUNTER, "objects",                                        \
      "of prefetched, those that made room without ever having been read")                         \
    X(SEGMENTS_SWEPT, segments_swept, COUNTER, "segments",                                         \
      "segments of nobody, or of an earlier device of this name, dropped at the store")\
    X(STORE_DEAD_BYTES, store_dead_bytes, GAUGE, "bytes",                                          \
      "of store_bytes, those that no page needs any more")                                         \
    X(CLEAN_SEGMENTS, clean_segments, COUNTER, "segments",                                         \
      "segments dropped because cleaning moved what lived in them")                                \
    X(CLEAN_PUTS, clean_puts, COUNTER, "segments", "segments that cleaning put instead")           \
    X(CLEAN_BYTES, clean_bytes, COUNTER, "bytes", "bytes of these")                                \
    X(CLEAN_PAGES, clean_pages, COUNTER, "pages", "pages that cleaning moved to another segment")  \
    X(CLEAN_RACED, clean_raced, COUNTER, "pages",                                                  \
      "pages rewritten or discarded while cleaning moved them")                                    \
    X(CLEAN_RETURNED, clean_returned, COUNTER, "pages",                                            \
      "pages that cleaning brought back into the pool, for the store was full")                    \
    X(STORE_SENT, store_sent_bytes, COUNTER, "bytes",                                              \
      "bytes sent to the stores, as they were on the wire (or written to a file)")                 \
    X(STORE_RECEIVED, store_received_bytes, COUNTER, "bytes",                                      \
      "bytes received from the stores, as they were on the wire")                                  \
    X(STORE_RECONNECTS, store_reconnects, COUNTER, "connections",                                  \
      "connections to the stores that were made anew")                                             \
    X(STORE_LIES, store_lies, COUNTER, "objects",                                                  \
      "answers of an encrypted store that were not what was put there")                            \
    X(STORES_AWAY, stores_away, GAUGE, "stores",                                                   \
      "stores that do not answer, or came back empty")                                             \
    X(OVERFLOW_LIMITED, overflow_limited, COUNTER, "times",                                        \
      "times that pages were to leave and overflow_limit= was used up")                            \
    X(INVALID_IO, invalid_io, COUNTER, "requests",                                                 \
      "requests refused because no device could do them: outside it, or of no known kind")         \
    X(OVERFLOW_HUGE, overflow_huge, COUNTER, "pages",                                              \
      "of overflow_pages, those that did not compress")

enum fsw_stat {
#define X(NAME, name, kind, unit, meaning) FSW_STAT_##NAME,
    FSW_STATS(X)
#undef X
        FSW_STAT_COUNT
};

enum fsw_stat_kind { FSW_STAT_COUNTER, FSW_STAT_GAUGE };

struct fsw_stat_info {
    const char *name, *unit, *meaning;
    enum fsw_stat_kind kind;
};

extern const struct fsw_stat_info fsw_stat_table[FSW_STAT_COUNT];

#endif
