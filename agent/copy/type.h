/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The type of a column as a tree, from what a server says of it: an [option] of the protocol, in which newer
 * types (vector; duration before v5) stand as the name of a Java class.
 */
#pragma once
#include <stdint.h>

#include "base/span.h"
#include "cql/response.h"

/* Beside enum cql_type: a vector, which the protocol has no number for. */
#define TYPE_VECTOR 0x100

struct type {
	uint16_t kind;	/* enum cql_type or TYPE_VECTOR; TYPE_CUSTOM: a class that is not known */
	uint16_t count; /* parts: elements of list, set, vector 1; map 2; tuple and user type their fields */
	uint32_t dimension; /* vector */
	struct type *parts; /* owned */
	char **names;	    /* user type: of the fields, owned */
};

/* Reads one option. 0, −EINVAL (malformed, or nested too deeply), −ENOMEM. *ret is to be given to
 * type_done(). */
int type_parse(struct span option, struct type *ret);
void type_done(struct type *t);

/* How many bytes each element of a vector has when none has a length of its own; 0 otherwise. */
unsigned type_fixed_size(const struct type *t);

/* The name that CQL gives the type: "int", "map"… */
const char *type_name(const struct type *t);
