/*
 * resp_wire.c: commands as bytes, replies as verdicts.
 *
 * The rule behind the verdicts: a failed put is harmless, a failed get kills a process. So a put
 * may be refused by any error, and a get only ever waits, except when the answer itself is damaged.
 */
#include "client/store/resp_wire.h"

#include <pthread.h>
#include <string.h>

/* "$" and a length with their line end, or "*" and a count. */
#define WORD_OVERHEAD 16

size_t resp_command_size(const struct resp_word *words, size_t count)
{
    size_t size = WORD_OVERHEAD;

    for (size_t i = 0; i < count; i++)
        size += WORD_OVERHEAD + words[i].length + 2;
    return size;
}

char *resp_number_write(char to[RESP_NUMBER_TEXT], uint64_t number)
{
    char digits[RESP_NUMBER_TEXT];
    size_t at = sizeof digits;

    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return mempcpy(to, digits + at, sizeof digits - at);
}

static char *write_head(char *to, char type, size_t number)
{
    *to = type;
    return mempcpy(resp_number_write(to + 1, number), "\r\n", 2);
}

size_t resp_command_write(char *to, const struct resp_word *words, size_t count)
{
    char *p = write_head(to, '*', count);

    for (size_t i = 0; i < count; i++) {
        p = write_head(p, '$', words[i].length);
        p = mempcpy(p, words[i].bytes, words[i].length);
        p = mempcpy(p, "\r\n", 2);
    }
    return (size_t)(p - to);
}

static void *refuse_array(const redisReadTask *task, int elements)
{
    return NULL; /* hiredis takes it for "no memory" and stops reading */
}

/* hiredis's own functions, without arrays. */
static redisReplyObjectFunctions functions;
static pthread_once_t functions_once = PTHREAD_ONCE_INIT;

static void make_functions(void)
{
    redisReader *reader = redisReaderCreate();

    if (reader == NULL)
        return;
    functions = *reader->fn;
    functions.createArray = refuse_array;
    redisReaderFree(reader);
}

redisReader *resp_reader_new(void)
{
    redisReader *reader;

    pthread_once(&functions_once, make_functions);
    if (functions.createString == NULL)
        return NULL;
    reader = redisReaderCreateWithFunctions(&functions);
    if (reader != NULL)
        reader->maxbuf = 0; /* keep the buffer: it is as large as the largest answer */
    return reader;
}

int resp_is_string(const redisReply *reply, const char *bytes, size_t length)
{
    return reply->type == REDIS_REPLY_STRING && (size_t)reply->len == length &&
           memcmp(reply->str, bytes, length) == 0;
}

/* What an error means, by how it begins. The first that fits counts. */
static const struct {
    const char *prefix;
    enum resp_verdict verdict;
    enum fsw_store_result put_result;
} errors[] = {
    {"OOM", RESP_DONE, FSW_STORE_FULL},
    {"LOADING", RESP_LATER, 0},
    {"BUSY", RESP_LATER, 0},
    {"TRYAGAIN", RESP_LATER, 0},
    {"MASTERDOWN", RESP_LATER, 0},
    {"CLUSTERDOWN", RESP_LATER, 0},
    {"READONLY", RESP_LATER, 0},
    {"MISCONF", RESP_LATER, 0},
    {"NOREPLICAS", RESP_LATER, 0},
    {"UNKILLABLE", RESP_LATER, 0},
    {"ERR max number of clients", RESP_LATER, 0},
    {"", RESP_DONE, FSW_STORE_REFUSED},
};

enum resp_verdict resp_judge_refusal(const redisReply *reply, enum fsw_store_result *ret_result)
{
    size_t i = 0;

    while (strncmp(reply->str, errors[i].prefix, strlen(errors[i].prefix)) != 0)
        i++;
    *ret_result = errors[i].put_result;
    return errors[i].verdict;
}

static enum resp_verdict judge_error(const struct fsw_store_request *request,
                                     const redisReply *reply, enum fsw_store_result *ret_result)
{
    if (request->verb == FSW_STORE_PUT)
        return resp_judge_refusal(reply, ret_result);
    if (request->verb == FSW_STORE_GET && strncmp(reply->str, "WRONGTYPE", 9) == 0) {
        *ret_result = FSW_STORE_CORRUPT;
        return RESP_DONE;
    }
    return RESP_LATER;
}

static enum resp_verdict judge_get(const struct fsw_store_request *request, const redisReply *reply,
                                   enum fsw_store_result *ret_result)
{
    if (reply->type == REDIS_REPLY_NIL || (reply->type == REDIS_REPLY_STRING && reply->len == 0))
        return RESP_EMPTY;
    if (reply->type != REDIS_REPLY_STRING)
        return RESP_ABSURD;
    *ret_result = (size_t)reply->len == request->length ? FSW_STORE_OK : FSW_STORE_CORRUPT;
    return RESP_DONE;
}

static int is_expected(const struct fsw_store_request *request, const redisReply *reply)
{
    if (request->verb == FSW_STORE_PUT)
        return reply->type == REDIS_REPLY_STATUS && strcmp(reply->str, "OK") == 0;
    return reply->type == REDIS_REPLY_INTEGER;
}

enum resp_verdict resp_judge(const struct fsw_store_request *request, const redisReply *reply,
                             enum fsw_store_result *ret_result)
{
    if (reply->type == REDIS_REPLY_ERROR)
        return judge_error(request, reply, ret_result);
    if (request->verb == FSW_STORE_GET)
        return judge_get(request, reply, ret_result);
    *ret_result = FSW_STORE_OK;
    return is_expected(request, reply) ? RESP_DONE : RESP_ABSURD;
}
