/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/prepared_record.h"

#include <errno.h>

#include "cql/statement.h"
#include "relay/prepared.h"

/* The next `size` bytes, which the caller knows to be there. */
static struct span take(struct span *from, size_t size)
{
	struct span s = span_of(from->data, size);

	from->data += size;
	from->size -= size;
	return s;
}

int prepared_record_read(struct span payload, struct prepared_text *ret)
{
	struct saved head;
	struct span all = payload;

	if (payload.size < sizeof(head))
		return -EINVAL;
	memcpy(&head, take(&payload, sizeof(head)).data, sizeof(head));
	*ret = (struct prepared_text){.flags = head.flags, .record = all};
	for (int side = 0; side < SIDES; side++) {
		const struct saved_side *s = &head.side[side];

		if (s->id_size == 0)
			continue;
		if (s->id_size > PREPARED_ID_MAX || s->result_id_size > PREPARED_ID_MAX ||
		    payload.size < (size_t)s->id_size + s->result_id_size)
			return -EINVAL;
		ret->id[side] = take(&payload, s->id_size);
		take(&payload, s->result_id_size);
	}
	if (head.keyspace_size > CQL_NAME_MAX || payload.size < head.keyspace_size || (!ret->id[ORIGIN].size && !ret->id[TARGET].size))
		return -EINVAL;
	ret->keyspace = take(&payload, head.keyspace_size);
	ret->text = payload;
	return 0;
}
