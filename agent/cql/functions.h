/* SPDX-License-Identifier: Apache-2.0 */
/* What is known about functions that a write may call. Private to agent/cql. */
#pragma once
#include <stdbool.h>

#include "base/span.h"
#include "cql/instant.h"

/*
 * Whether an unqualified call of `name` gives the same value on every cluster: Cassandra's own deterministic
 * functions, under their names of before and since Cassandra 5. false for now(), uuid() and the like, for
 * functions that users defined, and for all that we do not know. `fold`: the name was not quoted, case does
 * not count.
 */
bool function_is_fixed(struct span name, bool fold);

/* What kind of value an unqualified call without arguments gives, where the agent can give it itself: now(), uuid(), current*()
 * under the names of before and since Cassandra 5. */
enum instant_kind function_instant(struct span name, bool fold);

/*
 * 'now', in any case, is no constant: a timestamp takes it for the coordinator's present (TimestampSerializer, 4.1.10 and 5.0.9), also in
 * collections and in JSON. Nothing but the column's type tells it from a text.
 */
bool string_is_now(struct span text);
/* Whether a JSON document holds that string, or one with an escaped ASCII letter in it, which might be. */
bool json_has_now(struct span document);

/* Whether it is fromJson(), under either name. */
bool function_is_json(struct span name, bool fold);

/* Whether it names the keyspace of Cassandra's own functions. */
bool function_is_system(struct span name, bool fold);
