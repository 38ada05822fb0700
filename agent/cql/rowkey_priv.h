/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by rowkey.c (statements) and rowkey_json.c (documents). */
#pragma once
#include "cql/rowkey.h"

/*
 * The members of a JSON document as relations "name = fromJson(?)". 0, −ENOKEY (not an object, malformed),
 * −ENOMEM.
 */
int rowkey_json(struct arena *arena, struct span document, struct rowkey_relation **ret);
