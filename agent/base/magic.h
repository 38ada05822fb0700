/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects that travel through `void *` begin with a magic number. It is set when the object is made, checked where
 * a callback gets the pointer back, and cleared when the object is freed: a stale pointer stops the agent at once
 * instead of corrupting a stranger's session.
 */
#pragma once
#include <stdint.h>
#include <stdlib.h>

#define MAGIC_CHECK(object, value)                                                                            \
	do {                                                                                                  \
		if (!(object) || (object)->magic != (value))                                                  \
			abort();                                                                              \
	} while (0)
