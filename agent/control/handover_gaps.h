/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gaps on their way from an agent that drains to its successor, who keeps the ledger: one JSON array, an element for each,
 *
 *   {"cause":"lwt","missing":"target","keyspace":"k","table":"t","count":2,"first":µs,"last":µs}
 *   {"opaque":"begin","missing":"target","key":7,"cookie":9,"at":µs,"client":"10.0.0.1:4000","destination":"10.0.3.7:9042"}
 */
#pragma once
#include <jansson.h>

#include "cutover/ledger_format.h"
#include "relay/gap.h"

json_t *handover_gap_count(const struct gap_count *c);
json_t *handover_gap_session(const struct gap_session *s);
/* The same for a span of kind opaque that is open on the ledger. */
json_t *handover_gap_span(const struct ledger_record *r);

/* Calls back for each element of `array` that is understood; returns how many were not. */
unsigned handover_gaps_read(const json_t *array, void (*count)(void *context, const struct gap_count *c),
			    void (*session)(void *context, const struct gap_session *s), void *context);
