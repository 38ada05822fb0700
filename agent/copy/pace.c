// SPDX-License-Identifier: Apache-2.0
#include "copy/pace.h"

#define SECOND_NS 1000000000ull
#define PORTIONS 10 /* a second */

void pace_init(struct pace *p, int64_t rate, uint64_t now_ns)
{
	*p = (struct pace){.rate = rate, .due_ns = now_ns};
}

unsigned pace_rows(const struct pace *p, unsigned most)
{
	int64_t few = p->rate < PORTIONS ? 1 : p->rate / PORTIONS;

	return p->rate > 0 && few < most ? (unsigned)few : most;
}

bool pace_due(const struct pace *p, uint64_t now_ns)
{
	return p->rate <= 0 || now_ns >= p->due_ns;
}

void pace_count(struct pace *p, unsigned rows, uint64_t now_ns)
{
	if (p->rate <= 0)
		return;
	if (now_ns > p->due_ns + SECOND_NS)
		p->due_ns = now_ns - SECOND_NS;
	p->due_ns += (uint64_t)((double)rows / (double)p->rate * (double)SECOND_NS);
}
