/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages of the migration service: the proxy document's section "Communication with Migration Service".
 *
 *   0                            32
 *   +----------------------------+------------------
 *   | length of the JSON, big    | {"ID":"…","Type":1,"Data":"base64","Error":""}
 *   | endian, 1 … UPDATE_MAX     |
 *   +----------------------------+------------------
 *
 * The JSON is the one that Go's encoder makes of the document's structs: members in the struct's order,
 * []byte as base64 (null when there is none), iota values in the document's order. Read is what Go's decoder
 * would read, within bounds: members may be missing or null, unknown ones are skipped, of members that come
 * twice the last one counts.
 *
 * All functions are pure: no I/O, no clock, no log. Error texts contain nothing but printable ASCII.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/span.h"

#define UPDATE_HEADER_SIZE 4
#define UPDATE_MAX (16u << 20) /* bytes of JSON; 16,384 tables are 3 MiB of it */
#define UPDATE_VALUES_MAX \
	(1u << 18)	  /* JSON values in one message: an empty list takes 3 bytes there and 130 here */
#define UPDATE_ID_SIZE 37 /* a UUID in its usual form, and its NUL */
#define UPDATE_ID_NONE "00000000-0000-0000-0000-000000000000"
#define UPDATE_ERROR_SIZE 1024 /* bytes of an error text with its NUL; more is cut off */
#define UPDATE_TABLES_MAX 16384
#define UPDATE_NAME_SIZE 223 /* Cassandra allows 48, in version 5 up to 222 characters */

/* What update_frame returns beside a number of bytes consumed. */
enum { UPDATE_INCOMPLETE = -2, UPDATE_MALFORMED = -1 };

enum update_type {
	UPDATE_TABLE,
	UPDATE_START,
	UPDATE_COMPLETE,
	UPDATE_SHUTDOWN,
	UPDATE_SUCCESS,
	UPDATE_FAILURE,
	UPDATE_TYPES
};

/* "TableUpdate", "Start", … */
const char *update_type_name(enum update_type type);

struct update {
	char id[UPDATE_ID_SIZE];
	enum update_type type;
	uint8_t *data; /* decoded; NULL when there is none */
	size_t data_size;
	char error[UPDATE_ERROR_SIZE];
};

/*
 * One message at the start of `data`. Returns the bytes consumed and its JSON in *ret_body (borrows `data`),
 * UPDATE_INCOMPLETE, or UPDATE_MALFORMED: a length of 0 or above UPDATE_MAX, after which the stream cannot be
 * read on.
 */
int update_frame(const uint8_t *data, size_t size, struct span *ret_body);

/*
 * Reads a message's JSON. `ret_id` (UPDATE_ID_SIZE bytes) is written in any case, UPDATE_ID_NONE when the ID
 * could not be read: that is what a Failure is addressed to. 0, and update_done is due; −EINVAL with the
 * reason; −ENOMEM.
 */
int update_parse(struct span body, struct update *ret, char *ret_id, struct error *error)
    __attribute__((warn_unused_result));
void update_done(struct update *u);

/* A message with its length, malloc'ed for the caller. 0, −EMSGSIZE, −ENOMEM. */
int update_write(const struct update *u, uint8_t **ret_bytes, size_t *ret_size)
    __attribute__((warn_unused_result));

/* ---- what Data holds */

/* migration.Step, in the order of the document's ancestor. */
enum table_step {
	TABLE_ERRORED,
	TABLE_WAITING,
	TABLE_MIGRATING_SCHEMA,
	TABLE_MIGRATING_SCHEMA_COMPLETE,
	TABLE_WAITING_TO_UNLOAD,
	TABLE_UNLOADING_DATA,
	TABLE_UNLOADING_DATA_COMPLETE,
	TABLE_LOADING_DATA,
	TABLE_LOADING_DATA_COMPLETE,
	TABLE_STEPS
};

/* "Errored", "Waiting", … */
const char *table_step_name(enum table_step step);

/* migration.Table */
struct migration_table {
	char keyspace[UPDATE_NAME_SIZE], name[UPDATE_NAME_SIZE];
	enum table_step step;
	int64_t priority;
};

/* migration.Status: the tables by keyspace and name, sorted. */
struct migration_status {
	struct migration_table *tables;
	size_t count;
	size_t skipped; /* entries that are no table: no object, a name or a step that cannot be */
};

/* Data of a TableUpdate. 0, or −EINVAL with the reason. */
int table_parse(struct span data, struct migration_table *ret, struct error *error)
    __attribute__((warn_unused_result));

/* The same, for the caller to free: {"Keyspace","Name","Step","Error":null,"Priority","Lock":{}}. 0 or −ENOMEM. */
int table_write(const struct migration_table *t, uint8_t **ret_data, size_t *ret_size) __attribute__((warn_unused_result));

/*
 * Data of a Start. Lenient: no Data, or none in Tables, is a status without tables; single entries that are
 * no table are skipped. 0, and status_done is due; −EINVAL: no JSON object, Tables is no map, more than
 * UPDATE_TABLES_MAX; −ENOMEM.
 */
int status_parse(struct span data, struct migration_status *ret, struct error *error)
    __attribute__((warn_unused_result));
void status_done(struct migration_status *s);

/* NULL when the status names no such table. Borrows. */
const struct migration_table *status_find(const struct migration_status *s, const char *keyspace,
					  const char *name);
