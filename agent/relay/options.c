/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/options.h"

#include <errno.h>

#include "cql/frame.h"
#include "net/connect.h"

ssize_t options_ask(struct stream *stream, uint64_t deadline_ns, uint8_t answer[OPTIONS_ANSWER_MAX])
{
	static const uint8_t options[FRAME_HEADER_SIZE] = {4, 0, 0, 0, OP_OPTIONS};
	size_t used = 0, wanted = FRAME_HEADER_SIZE;
	int rc = stream_send_all(stream, options, sizeof(options), deadline_ns);

	if (rc < 0)
		return rc;
	while (used < wanted) {
		ssize_t n = stream_receive(stream, answer + used, wanted - used, deadline_ns);
		struct frame_header h;

		if (n <= 0)
			return used ? (ssize_t)used : n == 0 ? -ECONNRESET : n;
		used += (size_t)n;
		if (used == FRAME_HEADER_SIZE && frame_header_read(answer, used, &h) > 0)
			wanted += h.length < OPTIONS_ANSWER_MAX - FRAME_HEADER_SIZE ? h.length : OPTIONS_ANSWER_MAX - FRAME_HEADER_SIZE;
	}
	return (ssize_t)used;
}
