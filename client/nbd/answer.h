/*
 * answer.h: answers of a connection. On its thread.
 */
#ifndef FSW_NBD_ANSWER_H
#define FSW_NBD_ANSWER_H

#include "client/nbd/conn.h"

/* Room for an answer of a small request, of FSW_CONN_OUT_BYTES at most; `staged` grows by what was
 * put there. Sends what stands in the way. */
char *fsw_conn_stage(struct fsw_conn *conn, size_t bytes);

/* An answer without bytes. */
void fsw_conn_answer_small(struct fsw_conn *conn, uint64_t cookie, uint32_t error);

/* Answers a request that was out, and releases it once that is sent. */
void fsw_conn_answer(struct fsw_conn *conn, struct fsw_request *request);

/* Sends all that is ready. Waits for the client to read it. */
void fsw_conn_flush(struct fsw_conn *conn);

/* The request and its bytes are free again. */
void fsw_conn_release(struct fsw_conn *conn, struct fsw_request *request);

/* Nobody is there to be answered, or nobody that can be trusted: no mutation takes effect any more,
 * and nothing is read or answered. */
void fsw_conn_break_off(struct fsw_conn *conn);

#endif
