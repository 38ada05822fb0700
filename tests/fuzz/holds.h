/* SPDX-License-Identifier: Apache-2.0 */
/* What a fuzz target claims about every input; a claim that fails is a finding. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define HOLDS(condition)          \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
