/* SPDX-License-Identifier: Apache-2.0 */
/* mirror.include, mirror.exclude and mirror.rename as one scope (cql/scope.h). */
#pragma once
#include "control/config.h"
#include "cql/scope.h"

/* Fills a zeroed scope. 0; −EINVAL: entries contradict each other, with both in the reason; −ENOMEM. On failure nothing is to be freed. */
int scope_from_config(const struct config *c, struct scope *ret, struct error *error);
/* A zeroed one is fine. */
void scope_done(struct scope *s);
