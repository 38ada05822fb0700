/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of export*.c: how far ranges have come, and the scans that read them. */
#pragma once
#include "copy/export.h"
#include "copy/output.h"
#include "copy/mover.h"

struct range_state {
	struct token_range range;
	bool done;
	struct bytes paging; /* of the page that is to be read next; empty: the first */
	uint64_t written;    /* rows from there on which are in the file already */
};

struct export
{
	struct plan *plan;
	pthread_mutex_t lock; /* of output and of what stands in the file: ranges' states */
	struct output output;
	struct range_state *ranges;
	unsigned range_count, stride;
	_Atomic unsigned next;	 /* range to be begun, in the order of the stride */
	_Atomic unsigned failed; /* ranges given up */
	bool plain_numbers;	 /* no character of the dialect can stand in a number */
};

bool export_numbers_are_plain(const struct copy_options *o);

/* Ranges: of the ring, or of the progress file, which also says where the output stands. −errno with a
 * reason. */
int ranges_make(struct export *e, const struct export_request *request, struct error *error);
/* Writes the progress file: to a file beside it, then renamed. */
int ranges_save(struct export *e, const char *path, struct error *error);
void ranges_done(struct export *e);

/* How many scans a worker runs, their turn: begins ranges, retries. For worker.turn. */
struct export_worker {
	struct mover worker; /* first */
	struct export *export;
	struct scan *scans; /* MAXREQUESTS of them */
	unsigned active;
};
int scans_make(struct export_worker *w, struct export *e);
void scans_free(struct export_worker *w);
bool scans_turn(struct mover *worker, uint64_t now_ns);
