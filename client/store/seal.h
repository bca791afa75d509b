/*
 * seal.h: a segment's objects, each encrypted and authenticated on its own (AES-256-GCM).
 *
 * The bytes, as farswap/store.h has them: before each object 16 bytes, the seal.
 *
 *     0        2      4           16
 *     ┌────────┬──────┬───────────┬───────────────────────┬───────
 *     │ units  │ 0    │ tag       │ object, units * 16    │ next seal …
 *     └────────┴──────┴───────────┴───────────────────────┴───────
 *       clear, authenticated       encrypted
 *
 * The nonce is segment id and offset of the seal, so it is used once: an id is never used twice, and
 * a put that is repeated has the same bytes. What is authenticated with the object: device id, units,
 * and by the nonce segment id and offset. So no bytes of another device, another segment, an older
 * one or another place can pass for an object. The tag has 96 bits, which NIST SP 800-38D allows
 * without conditions; a longer one would cost another 16 bytes an object.
 *
 * Pure functions on a context; one thread at a time has it. Nothing blocks; nothing allocates after
 * seal_init().
 */
#ifndef FSW_STORE_SEAL_H
#define FSW_STORE_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include "farswap/store.h"

struct seal;

/* Allocates. NULL: no memory, or no AES-GCM in this libcrypto. */
struct seal *seal_new(const struct fsw_device_id *device, const uint8_t key[FSW_STORE_KEY_BYTES]);
void seal_free(struct seal *seal); /* wipes the key */

/* Encrypts a whole segment in place. -EINVAL: the seals don't lead from its begin to its end, and
 * nothing was changed; -EIO: libcrypto failed. */
int seal_close(struct seal *seal, uint64_t id, void *bytes, uint32_t length);

/* Decrypts a range that begins with a seal, at `offset` of its segment, in place: 0, and every object
 * that is whole in the range is as it was put, seal too. Of one that is cut off, or is damaged, the
 * seal becomes zeroes, and nothing behind it is opened. -EBADMSG: that is so of the first. */
int seal_open(struct seal *seal, uint64_t id, uint32_t offset, void *bytes, uint32_t length);

#endif
