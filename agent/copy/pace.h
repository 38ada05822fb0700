/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INGESTRATE: when the next rows may go. Each costs its share of a second. Time in which nothing came or went
 * (a server that stalls, a pipe that is silent) is made up for by a second's rows at most, not by all at once.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct pace {
	int64_t rate; /* rows a second; 0 = as many as there are */
	uint64_t due_ns;
};

void pace_init(struct pace *p, int64_t rate, uint64_t now_ns);
/* How many rows go together: so few that a second has several times as many, and `most` at most. */
unsigned pace_rows(const struct pace *p, unsigned most);
bool pace_due(const struct pace *p, uint64_t now_ns);
/* So many are on their way now. */
void pace_count(struct pace *p, unsigned rows, uint64_t now_ns);
