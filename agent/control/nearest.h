/* SPDX-License-Identifier: Apache-2.0 */
/* The word that was probably meant: for unknown keys, variables, subcommands and options. */
#pragma once
#include <stddef.h>

/* Keeps the best of the candidates offered so far. Begin with {.word = …}. Case is ignored. */
struct nearest {
	const char *word;
	const char *best; /* borrowed from the caller of nearest_offer; NULL = nothing near enough */
	size_t distance;
};

void nearest_offer(struct nearest *n, const char *candidate);
