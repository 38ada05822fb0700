/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What docs/inspect.md tells a person to look for is there, with bpftool alone. One scene, as on a node:
 *
 *   pod A ─ accelerated session, five bytes unread    steered, carried, client_socks, agent_socks, credits
 *         ─ one that the agent has not accepted yet   destinations
 *   pod B ─ a policy drops the way to the agent       trips, bypassed
 */
#include "bpf/lab.h"

#define PINS "/sys/fs/bpf/cqlferry/v1"

static struct lab_agent agent;
static int cluster, session, end, unaccepted, past;
static struct intercept_origin origin;

static int setup(void **state)
{
	struct intercept_options options = lab_options();
	struct sockaddr_storage target = lab_address(LAB_CLUSTER4, LAB_PORT);
	const struct sockaddr *targets[] = {(struct sockaddr *)&target};
	struct error e = {""};
	int code = -1;

	(void)state;
	options.acceleration = INTERCEPT_ON;
	options.trip_ms = 60000;
	cluster = lab_listen(LAB_CLUSTER, LAB_CLUSTER4, LAB_PORT);
	agent = lab_agent_open(&options);
	assert_int_equal(intercept_set_direct(agent.it, targets, 1, &e), 0);

	lab_egress_policy(LAB_POD_B, "drop");
	for (int i = 0; i < 2; i++)
		assert_int_not_equal(lab_try_connect(LAB_POD_B), 0);
	past = lab_connect(LAB_POD_B, LAB_CLUSTER4, LAB_PORT);
	assert_true(past >= 0);
	lab_egress_policy(LAB_POD_B, NULL);

	assert_int_equal(intercept_set_phase(agent.it, INTERCEPT_MIRROR), 0);
	session = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
	assert_true(session >= 0);
	end = lab_accept(&agent, agent.listener, &origin, &code);
	assert_int_equal(code, 0);
	assert_non_null(origin.slot);
	assert_int_equal(send(session, "hello", 5, 0), 5);
	assert_true(lab_readable(end, 1000));
	unaccepted = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
	assert_true(unaccepted >= 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(past);
	close(unaccepted);
	close(session);
	close(end);
	intercept_release(agent.it, origin.slot);
	lab_agent_close(&agent, INTERCEPT_REMOVE);
	close(cluster);
	return 0;
}

/* The caller frees it. *ret_status as pclose has it. */
static char *said(const char *command, int *ret_status)
{
	size_t size = 0, room = 1 << 16;
	char *text = malloc(room);
	FILE *out = popen(command, "r");

	assert_non_null(text);
	assert_non_null(out);
	for (size_t n; (n = fread(text + size, 1, room - size - 1, out)) > 0;) {
		size += n;
		if (room - size < 2)
			assert_non_null(text = realloc(text, room *= 2));
	}
	text[size] = 0;
	*ret_status = pclose(out);
	return text;
}

#define AT(ip, port, numbers) "\"ip\": " #ip ", \"port\": " #port ", \"address\": [" numbers ","
#define FLOW(verdict, cause, phase) \
	"\"verdict\": \"" verdict "\", \"cause\": \"" cause "\", \"phase\": \"" phase "\""

/* Every map that is pinned, and what its dump says, any white space being one blank. Of the last three
 * bpftool lists nothing. */
static const struct {
	const char *map, *says[4];
} rows[] = {
    {"power", {"\"interception\": \"INTERCEPTION_ON\""}},
    {"settings", {"\"phase\": \"PHASE_IS_MIRROR\"", "\"acceleration\": 1", AT(4, PORT, "10,77,1,1")}},
    {"heartbeat", {"\"deadline_ns\": ", "\"boot\": "}},
    {"listeners", {"\"port\": PORT,", "\"open\": 1", "\"closed_ns\": 0"}},
    {"watch4",
     {"\"port\": 9042, \"address\": [10,77,3,2",
      "\"why\": \"WATCH_CONFIGURED\", \"prefix\": 32, \"connects\": 5"}},
    {"watch6",
     {"\"port\": 9042, \"address\": [253,119,0,3",
      "\"why\": \"WATCH_CONFIGURED\", \"prefix\": 128, \"connects\": 0"}},
    {"excluded", {"\"cgroup\": ", "\"is_agent\": 1"}},
    {"targets", {AT(4, 9042, "10,77,3,2")}},
    {"steered",
     {"\"destination\": { " AT(4, 9042, "10,77,3,2"), "\"steered\": { " AT(4, PORT, "10,77,1,1"),
      FLOW("VERDICT_REDIRECTED", "CAUSE_AGENT_SERVES", "PHASE_IS_MIRROR"), "\"program\": \"test_inspect\""}},
    {"destinations",
     {"\"asked\": { " AT(4, 9042, "10,77,3,2"), "\"agent\": { " AT(4, PORT, "10,77,1,1"),
      "\"program\": \"test_inspect\""}},
    {"carried", {"\"pid\": ", "\"connect_ns\": ", "\"program\": \"test_inspect\""}},
    {"bypassed",
     {"\"destination\": { " AT(4, 9042, "10,77,3,2"),
      FLOW("VERDICT_BYPASSED", "CAUSE_NAMESPACE_TRIPPED", "PHASE_IS_OBSERVE"),
      "\"program\": \"test_inspect\""}},
    {"trips", {"\"last_cause\": \"CAUSE_CONNECT_FAILED\"", "\"since_ns\": ", "\"until_ns\": "}},
    {"counters", {"\"redirected\": ", "\"bypassed_tripped\": 1", "\"trips\": 1", "\"accelerated\": "}},
    {"client_socks", {"key: PAIR value: CLIENT"}},
    {"agent_socks", {"key: PAIR value: END"}},
    {"credits", {"\"sent\": 5, \"consumed\": 0"}},
    {"events", {NULL}},
    {"clients", {NULL}},
    {"listening", {NULL}},
};

/* Words in capitals that only this run knows: the agent's port, and socket cookies byte by byte. */
static void fill(const char *says, char *ret_text, size_t size)
{
	uint64_t cookies[] = {origin.client_cookie, origin.netns_cookie, origin.client_cookie, 0};
	socklen_t cookie = sizeof(cookies[3]);
	char bytes[4][25], pair[64], port[8];
	const struct {
		const char *word, *text;
	} known[] = {{"PORT", port}, {"PAIR", pair}, {"CLIENT", bytes[2]}, {"END", bytes[3]}};
	size_t at = 0;

	assert_int_equal(getsockopt(end, SOL_SOCKET, SO_COOKIE, &cookies[3], &cookie), 0);
	for (size_t i = 0; i < 4; i++)
		for (size_t k = 0; k < 8; k++)
			snprintf(bytes[i] + 3 * k, 4, k < 7 ? "%02x " : "%02x",
				 (unsigned)(cookies[i] >> 8 * k & 255));
	snprintf(pair, sizeof(pair), "%s %s", bytes[0], bytes[1]);
	snprintf(port, sizeof(port), "%u", ntohs(((struct sockaddr_in *)&agent.address)->sin_port));
	while (*says && at < size - 1) {
		size_t k = 0;

		while (k < 4 && strncmp(says, known[k].word, strlen(known[k].word)))
			k++;
		if (k < 4) {
			at += (size_t)snprintf(ret_text + at, size - at, "%s", known[k].text);
			says += strlen(known[k].word);
		} else {
			ret_text[at++] = *says++;
		}
	}
	ret_text[at] = 0;
}

static void one_blank(char *text)
{
	char *to = text, before = ' ';

	for (; *text; text++) {
		char c = strchr(" \n\t", *text) ? ' ' : *text;

		if (c != ' ' || before != ' ')
			*to++ = before = c;
	}
	*to = 0;
}

static void test_dump_of_each_map(void **state)
{
	struct dirent *entry;
	DIR *pins = opendir(PINS);
	size_t maps = 0;

	(void)state;
	assert_non_null(pins);
	while ((entry = readdir(pins))) {
		char command[512], want[512], *text;
		size_t row = 0;
		int status;

		if (entry->d_name[0] == '.' || !strncmp(entry->d_name, "link-", 5))
			continue;
		while (row < sizeof(rows) / sizeof(*rows) && strcmp(rows[row].map, entry->d_name))
			row++;
		if (row == sizeof(rows) / sizeof(*rows))
			fail_msg("nobody looks at map %s: say here and in docs/inspect.md what it shows",
				 entry->d_name);
		maps++;
		if (!rows[row].says[0])
			continue;
		/* As docs/inspect.md has it: 16,384 slots are too many to read. */
		snprintf(command, sizeof(command), "bpftool map dump pinned " PINS "/%s%s", entry->d_name,
			 strcmp(entry->d_name, "credits") ? "" : " | grep -B1 -A4 '\"owner\": [1-9]'");
		text = said(command, &status);
		assert_int_equal(status, 0);
		one_blank(text);
		for (size_t i = 0; i < 4 && rows[row].says[i]; i++) {
			fill(rows[row].says[i], want, sizeof(want));
			if (!strstr(text, want))
				fail_msg("%s does not say <%s>:\n%s", entry->d_name, want, text);
		}
		free(text);
	}
	closedir(pins);
	assert_int_equal(maps, sizeof(rows) / sizeof(*rows));
}

/* The commands of docs/inspect.md for the attachments. */
static void test_programs_and_links(void **state)
{
	static const char *const programs[] = {"steer_sockops", "steer_connect4", "steer_connect6",
					       "steer_peername4", "steer_peername6"};
	char command[PATH_MAX + 128], *text;
	int status;

	(void)state;
	snprintf(command, sizeof(command), "bpftool cgroup show %s effective", lab.cgroup[LAB_POD_A]);
	text = said(command, &status);
	assert_int_equal(status, 0);
	for (size_t i = 0; i < sizeof(programs) / sizeof(*programs); i++)
		if (!strstr(text, programs[i]))
			fail_msg("no %s:\n%s", programs[i], text);
	free(text);
	text = said("for l in " PINS "/link-*; do bpftool link show pinned $l; done", &status);
	assert_int_equal(status, 0);
	assert_non_null(strstr(text, "attach_type cgroup_inet4_connect"));
	assert_non_null(strstr(text, "attach_type cgroup_inet6_getpeername"));
	free(text);
}

static int tests(void)
{
	const struct CMUnitTest list[] = {
	    cmocka_unit_test(test_dump_of_each_map),
	    cmocka_unit_test(test_programs_and_links),
	};

	return cmocka_run_group_tests(list, setup, teardown);
}

int main(void)
{
	return lab_main(tests);
}
