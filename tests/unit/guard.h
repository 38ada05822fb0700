/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inputs that end where memory ends: a copy of the bytes is laid flush against a page that nobody may touch,
 * so that reading one byte too far is a fault in an ordinary test run, sanitizer or not.
 *
 * The copy of guard_bytes() is good until the next call of the same slot; different slots do not disturb each
 * other.
 */
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/span.h"

#define GUARD_ROOM (1u << 20)
#define GUARD_SLOTS 4

static inline uint8_t *guard_end(unsigned slot)
{
	static uint8_t *ends[GUARD_SLOTS];
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	if (!ends[slot]) {
		uint8_t *base =
		    mmap(NULL, GUARD_ROOM + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (base == MAP_FAILED || mprotect(base + GUARD_ROOM, page, PROT_NONE)) {
			perror("guard page");
			abort();
		}
		ends[slot] = base + GUARD_ROOM;
	}
	return ends[slot];
}

/* A copy of `size` bytes (at most GUARD_ROOM) in front of the guard page. */
static inline struct span guard_slot(unsigned slot, const void *bytes, size_t size)
{
	uint8_t *at = guard_end(slot) - size;

	if (size > GUARD_ROOM)
		abort();
	if (size)
		memmove(at, bytes, size); /* a part of the slot itself may become its content */
	return span_of(at, size);
}

static inline struct span guard_bytes(const void *bytes, size_t size)
{
	return guard_slot(0, bytes, size);
}

static inline struct span guard_text(const char *text)
{
	return guard_slot(0, text, strlen(text));
}

/* The bytes that hexadecimal digits spell (blanks between them are skipped), in front of the guard page. */
static inline struct span guard_hex(unsigned slot, const char *hex)
{
	static uint8_t bytes[GUARD_ROOM / 16];
	size_t n = 0;
	unsigned value, digits = 0;

	for (; *hex; hex++) {
		if (*hex == ' ')
			continue;
		if (n == sizeof(bytes) || sscanf((char[2]){*hex, 0}, "%x", &value) != 1)
			abort();
		bytes[n] = (uint8_t)(bytes[n] << 4 | value);
		n += digits++ & 1;
	}
	if (digits & 1)
		abort();
	return guard_slot(slot, bytes, n);
}

/* Room for writing `size` bytes and not one more. */
static inline uint8_t *guard_room(unsigned slot, size_t size)
{
	return guard_end(slot) - size;
}
