/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/held.h"

#include <stdlib.h>
#include <string.h>

#include "relay/session.h"
#include "relay/tap.h"

struct held_answer *held_new(struct session *s, int16_t stream, const uint8_t *envelope, size_t size)
{
	struct held_answer *h = malloc(sizeof(*h) + size);

	if (!h)
		return NULL;
	*h = (struct held_answer){.session = s, .stream = stream, .size = size};
	memcpy(h->envelope, envelope, size);
	return h;
}

void relay_acknowledged(struct worker *w, struct held_answer *h)
{
	struct session *s = h->session;

	if (s) {
		session_request_done(s, h->stream); /* it forgets `h` */
		if (s->state == SESSION_OPEN)
			session_answer(s, h->envelope, h->size);
		/* What waited for this one to be through. */
		if (s->state == SESSION_ORPHAN && s->writes == 0)
			session_close(s, CLOSE_CLIENT);
		else if (w->stopping && session_idle(s))
			session_close(s, CLOSE_STOP);
	}
	free(h);
	worker_settled(w);
}
