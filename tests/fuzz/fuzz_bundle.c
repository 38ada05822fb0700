// SPDX-License-Identifier: Apache-2.0
/* Input: a bundle's config.json, and the same bytes as the metadata service's answer. */
#include <string.h>

#include "fuzz/holds.h"
#include "net/bundle_json.h"

/* What goes into TLS, URLs and logs. */
static void check_name(const char *text, size_t room)
{
	size_t size = strnlen(text, room);

	HOLDS(size > 0 && size < room);
	for (size_t i = 0; i < size; i++)
		HOLDS(text[i] > ' ' && text[i] < 0x7f && text[i] != '/' && text[i] != '@' && text[i] != '%');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bundle_config config;
	struct bundle_contact contact;
	struct error error = {""};

	if (bundle_config_parse(span_of(data, size), &config, &error) == 0) {
		check_name(config.host, sizeof(config.host));
		HOLDS(config.port > 0);
	} else {
		HOLDS(error.text[0]);
	}
	error.text[0] = 0;
	if (bundle_contact_parse(span_of(data, size), &contact, &error) == 0) {
		check_name(contact.proxy_host, sizeof(contact.proxy_host));
		HOLDS(contact.proxy_port > 0 && contact.count > 0 && contact.count <= BUNDLE_NODES_MAX);
		for (unsigned i = 0; i < contact.count; i++)
			check_name(contact.host_id[i], BUNDLE_ID_MAX);
	} else {
		HOLDS(error.text[0]);
	}
	return 0;
}
