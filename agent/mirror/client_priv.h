/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the blocking client: client.c opens connections and moves bytes, client_ask.c asks questions. */
#pragma once
#include "mirror/client.h"
#include "net/stream.h"

#define CLIENT_MAGIC 0xC11E47C1u
#define VERSION 4
#define STREAM 1
#define STATE_MAX (64u << 10) /* a paging state; Cassandra's are below 1 KiB */
#define PREPARED_MAX 64u /* statements that a connection knows; by hash, the newer in the older's place */
#define PREPARED_ID_SIZE 64u

struct client_prepared {
	uint8_t *text;
	size_t size;
	uint8_t id[PREPARED_ID_SIZE];
	uint8_t id_size; /* 0: empty */
};

struct client {
	uint32_t magic;
	struct stream stream;
	bool broken, authenticated;
	unsigned timeout_ms;
	uint64_t deadline_ns; /* of the step that runs */
	char node[ADDR_TEXT_MAX];
	uint8_t *buffer; /* header and body of the answer that was read last */
	size_t room, used;
	struct client_prepared prepared[PREPARED_MAX];
	struct column columns[CLIENT_COLUMNS_MAX];
	struct span cells[CLIENT_COLUMNS_MAX];
};

struct answer {
	struct frame_header head;
	struct span body; /* behind tracing id, warnings and payload; lives until the next read */
};

/* The stream's state is unknown from here on: no further question on this connection. Returns `code`. */
int client_broken_by(struct client *c, struct error *error, int code, const char *what);

/* A step begins: its time is client.timeout_ms. */
void client_step_begin(struct client *c);
/* 0 or −errno, without a word. */
int client_send_all(struct client *c, const uint8_t *data, size_t size);
/* The next answer to our request; what comes on other streams (events, a late answer) is passed over. */
int client_read_answer(struct client *c, struct answer *ret, struct error *error);
/* Both; `size` may be an error of the encoder's. */
int client_exchange(struct client *c, const uint8_t *data, ssize_t size, struct answer *ret,
		    struct error *error);

/* An ERROR, or what was not expected, as −errno and text. */
int client_server_error(struct client *c, const struct answer *a, struct error *error);
int client_unexpected(struct client *c, const struct answer *a, struct error *error);

void client_prepared_drop(struct client_prepared *p);
