/*
 * codec.h: ways to make a page smaller. One ops table a codec, one file a codec.
 *
 * The codec of each object is in its header, so codec= may change while the device lives. A codec
 * never sees anything but whole pages; it fails by not fitting, never otherwise.
 */
#ifndef FSW_CODEC_H
#define FSW_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "farswap/error.h"

/* In object headers: never change a number. */
enum fsw_codec_id {
    FSW_CODEC_RAW = 0,
    FSW_CODEC_SAME = 1, /* one 64-bit word fills the page; found before any codec is asked */
    FSW_CODEC_LZ4 = 2,
    FSW_CODEC_LZO_RLE = 3, /* its place; no codec yet */
    FSW_CODEC_ZSTD = 4,
    FSW_CODEC_MAX = 5,
};

struct fsw_codec {
    const char *name;
    int level_min, level_max, level_default; /* level_min == level_max: takes no level */

    /* What compress needs as `state`, made before the data path needs it: allocates. NULL: no
     * memory. */
    void *(*state_new)(int level);
    void (*state_free)(void *state);

    /* Makes ahead what decompress needs, for `most` threads at once if new objects are of this codec
     * or readers have stood in line, else for one; frees what is more. The process's, for all its
     * devices. Allocates, and waits for readers that are at work (microseconds). -ENOMEM: there are
     * fewer, and where there was one there is one. NULL: decompress needs nothing. */
    int (*set_readers)(unsigned most, int in_use);

    /* Compresses the page, which is `length` bytes and then zeroes (fsw_without_tail), into at most
     * capacity bytes. Returns how many, or 0 if it does not fit. */
    size_t (*compress)(void *state, int level, const void *page, size_t length, void *bytes,
                       size_t capacity);

    /* Whole page or -EIO; reads no byte outside length, writes none outside the page. */
    int (*decompress)(const void *bytes, size_t length, void *page);
};

/* NULL for an id without a codec. */
const struct fsw_codec *fsw_codec_by_id(unsigned id);

/* "lz4", "lz4:4", "zstd", "zstd:-3", "raw". -EINVAL with a line that lists what is allowed. */
int fsw_codec_parse(const char *text, uint8_t *ret_id, int *ret_level, struct fsw_error *err);

/* Id and level in one word, as the superblock keeps them. */
static inline uint32_t fsw_codec_word(uint8_t id, int level)
{
    return (uint32_t)id | (uint32_t)level << 8; /* 24 bits of level, two's complement */
}

static inline int fsw_codec_word_level(uint32_t word)
{
    return (int32_t)word >> 8;
}

extern const struct fsw_codec fsw_codec_raw, fsw_codec_same, fsw_codec_lz4, fsw_codec_zstd;

/* How long the page is without its zero tail: a multiple of 8, at least 8. Memory often ends in
 * zeroes (a page half used); leaving the tail out spares both codec and copy: decompression of a
 * page that is 60 % tail takes a fifth of the time. */
size_t fsw_without_tail(const void *page);

/* 1 if the first `length` bytes of a page look like noise (encrypted, compressed, media), which no
 * codec makes smaller: 128 bytes from 16 places have about as many different values as noise has,
 * 101. Most pages are told after 32 bytes. It sees 99.8 % of pages of noise, and took none of
 * 191,000 pages of redis, python, java, node and gcc for noise that lz4 would have made smaller.
 * Takes 0.03 to 0.1 µs; spares 0.8 (lz4) or 7 (zstd). */
int fsw_looks_random(const void *page, size_t length);

/* Zeroes the page from length on. -EIO if length is none that fsw_without_tail gives. */
int fsw_fill_tail(void *page, long length);

/* 1 if all 64-bit words of the page are equal; *ret_word is that word. */
int fsw_same_filled(const void *page, uint64_t *ret_word);

void fsw_same_fill(void *page, uint64_t word);

#endif
