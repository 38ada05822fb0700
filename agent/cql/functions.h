/* SPDX-License-Identifier: Apache-2.0 */
/* What is known about functions that a write may call. Private to agent/cql. */
#pragma once
#include <stdbool.h>

#include "base/span.h"

/*
 * Whether an unqualified call of `name` gives the same value on every cluster: Cassandra's own deterministic
 * functions, under their names of before and since Cassandra 5. false for now(), uuid() and the like, for
 * functions that users defined, and for all that we do not know. `fold`: the name was not quoted, case does
 * not count.
 */
bool function_is_fixed(struct span name, bool fold);
