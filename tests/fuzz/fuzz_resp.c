/*
 * fuzz_resp.c: libFuzzer against what a RESP server answers, where the store reads it (resp_wire.h).
 *
 * The first byte chooses the verb that each answer is judged for, the next four how the rest is cut into
 * pieces. Small bytes of it stand for whole pieces of the protocol, since hiredis is no part of what
 * libFuzzer sees. Whole and in pieces it must be judged the same, a get is only done with the bytes that it asked
 * for, and nothing is ever kept that is larger than what came.
 */
#include <stdlib.h>
#include <string.h>

#include "client/store/resp_wire.h"

#define ANSWERS 256u
#define WANTED 5u

struct judgement {
    unsigned count;
    int broken;
    uint8_t verdicts[ANSWERS], results[ANSWERS];
};

static void judge(struct judgement *to, enum fsw_store_verb verb, const redisReply *reply)
{
    const struct fsw_store_request request = {.verb = verb, .length = WANTED};
    enum fsw_store_result result = FSW_STORE_OK;
    enum resp_verdict verdict = resp_judge(&request, reply, &result);

    if (verb == FSW_STORE_GET && verdict == RESP_DONE && result == FSW_STORE_OK &&
        !resp_is_string(reply, reply->str, WANTED))
        abort();
    if (verb == FSW_STORE_GET && verdict == RESP_DONE && result == FSW_STORE_GONE)
        abort(); /* only a sentinel tells */
    if (to->count < ANSWERS) {
        to->verdicts[to->count] = (uint8_t)verdict;
        to->results[to->count] = verdict == RESP_DONE ? (uint8_t)result : 0;
    }
    to->count++;
}

/* In pieces of 1 + cut[i % 4] bytes (cut NULL: whole). */
static struct judgement run(const uint8_t *bytes, size_t size, const uint8_t *cut,
                            enum fsw_store_verb verb)
{
    struct judgement judgement = {0};
    redisReader *reader = resp_reader_new();
    void *reply;

    for (size_t at = 0, i = 0; !judgement.broken && at < size; i++) {
        size_t length = cut == NULL ? size : 1u + cut[i % 4];
        length = length < size - at ? length : size - at;
        judgement.broken = redisReaderFeed(reader, (const char *)bytes + at, length) != REDIS_OK;
        at += length;
        while (!judgement.broken &&
               (judgement.broken = redisReaderGetReply(reader, &reply) != REDIS_OK) == 0 &&
               reply != NULL) {
            judge(&judgement, verb, reply);
            freeReplyObject(reply);
        }
    }
    redisReaderFree(reader);
    return judgement;
}

/* As it comes over the wire. The caller frees it. */
static uint8_t *spelled(const uint8_t *input, size_t size, size_t *ret_size)
{
    static const char *const parts[] = {
        "\r\n",       "$3\r\nabc\r\n",    "$5\r\nabcde\r\n", "$0\r\n\r\n", "$-1\r\n",
        ":1\r\n",     "+OK\r\n",          "-OOM x\r\n",      "*1\r\n",     "-LOADING x\r\n",
        "-ERR x\r\n", "-WRONGTYPE x\r\n", "$65521\r\n",      "*-1\r\n",
    };
    uint8_t *bytes = malloc(size * 20 + 1), *to = bytes;

    for (size_t i = 0; i < size; i++) {
        if (input[i] < sizeof parts / sizeof *parts)
            to = mempcpy(to, parts[input[i]], strlen(parts[input[i]]));
        else
            *to++ = input[i];
    }
    *ret_size = (size_t)(to - bytes);
    return bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    if (size < 5)
        return 0;
    enum fsw_store_verb verb = (enum fsw_store_verb)(input[0] % 3);
    size_t length;
    uint8_t *bytes = spelled(input + 5, size - 5, &length);
    struct judgement whole = run(bytes, length, NULL, verb);
    struct judgement pieces = run(bytes, length, input + 1, verb);
    free(bytes);
    if (memcmp(&whole, &pieces, sizeof whole) != 0)
        abort();
    return 0;
}
