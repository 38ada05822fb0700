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

/* Whether it names the keyspace of Cassandra's own functions. */
bool function_is_system(struct span name, bool fold);
