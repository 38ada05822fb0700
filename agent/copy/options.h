/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of COPY: those of cqlsh and CONNECTIONMODE, TEXTESCAPES. One table (options.c) holds names,
 * defaults, limits and help texts; flags, WITH clauses and sections of cqlshrc all go through options_set().
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "copy/csv.h"
#include "copy/value.h"
#include "net/mode.h"

#define OPTION_PATH 1024

struct copy_options {
	/* both ways */
	char delimiter[16], quote[16], escape[16], null[128], datetimeformat[128], boolstyle[128],
	    decimalsep[16], thousandssep[16];
	char ratefile[OPTION_PATH], configfile[OPTION_PATH], encoding[32], connectionmode[16];
	int64_t maxattempts, numprocesses;
	double reportfrequency;
	bool header;
	/* COPY TO */
	int64_t pagesize, pagetimeout, maxrequests, maxoutputsize, floatprecision, doubleprecision;
	char begintoken[32], endtoken[32];
	/* COPY FROM */
	int64_t chunksize, ingestrate, minbatchsize, maxbatchsize, maxrows, skiprows, maxparseerrors,
	    maxinserterrors, ttl, requesttimeout, maxinflightmessages;
	char skipcols[2048], errfile[OPTION_PATH];
	bool preparedstatements, textescapes;

	/* What options_finish() makes of them. */
	enum connection_mode mode;
	bool mode_named; /* CONNECTIONMODE was given by somebody */
	bool has_begin, has_end;
	int64_t begin, end; /* tokens */
	struct csv_dialect dialect;
	struct value_style style;
	char yes[64], no[64];
	struct bytes null_written;
};

enum option_kind { OPTION_TEXT, OPTION_NUMBER, OPTION_REAL, OPTION_BOOL };

struct copy_option {
	const char *name; /* upper case */
	enum option_kind kind;
	const char *value; /* default; NULL = found out at the start */
	const char *help;
	int64_t min, max; /* NUMBER, REAL */
	size_t place, size;
	const char *direction; /* "", "to", "from": whom it concerns */
};

extern const struct copy_option copy_option_table[];
extern const size_t copy_option_count;

/* The defaults. */
void options_init(struct copy_options *o);
void options_done(struct copy_options *o);

/* Sets one by name, in any case. 0, −ENOENT (no such option), −EINVAL; with a text that says what is allowed.
 */
int options_set(struct copy_options *o, const char *name, const char *value, struct error *error);

/* Judges them together once all are set, and derives dialect, style, mode and tokens. 0 or −EINVAL. */
int options_finish(struct copy_options *o, struct error *error);

/* Settings that are to be applied later, in order: a section of cqlshrc may have to come before them. */
struct option_list {
	struct {
		char *name, *value;
	} * list;
	size_t count;
};
int option_list_add(struct option_list *l, const char *name, size_t name_size, const char *value,
		    size_t value_size);
void option_list_done(struct option_list *l);
