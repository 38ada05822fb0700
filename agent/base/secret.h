/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing secrets in a time that does not tell where they differ. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool secret_equal(const uint8_t *a, const uint8_t *b, size_t size)
{
	volatile uint8_t differs = 0;

	for (size_t i = 0; i < size; i++)
		differs |= a[i] ^ b[i];
	return differs == 0;
}
