// SPDX-License-Identifier: Apache-2.0
/* Input: an entry of connection.overrides. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/holds.h"
#include "net/mode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct verdicts *v = calloc(1, sizeof(*v));
	char *text = malloc(size + 1);
	struct error error = {""};

	HOLDS(text && v);
	memcpy(text, data, size);
	text[size] = 0;
	verdicts_init(v, MODE_AUTO);
	if (mode_rule_parse(text, &v->rules[0], &error) == 0) {
		const struct mode_rule *r = &v->rules[0];
		struct addr a = r->network;

		HOLDS(r->bits <= (a.sa.sa_family == AF_INET ? 32u : 128u));
		if (!addr_port(&a))
			addr_set_port(&a, 9042);
		v->rule_count = 1;
		HOLDS(verdicts_mode(v, &a) == r->mode); /* what it names it holds for */
	} else {
		HOLDS(*error.text);
	}
	free(text);
	free(v);
	return 0;
}
