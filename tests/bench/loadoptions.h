/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loadoptions.h - what cqlload was asked to do; the options are described at the head of cqlload.c.
 */
#ifndef BENCH_LOADOPTIONS_H
#define BENCH_LOADOPTIONS_H

#include "wire.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <sys/socket.h>

enum { STREAMS_MAX = 32000 };

static struct {
	struct sockaddr_storage address;
	socklen_t address_len;
	int protocol, connections, inflight, batch_size, keys, threads, idle;
	uint32_t bytes;
	enum { LOAD_READ, LOAD_WRITE, LOAD_BATCH } op;
	double seconds, warmup;
	uint64_t requests;
	const char *user, *password, *keyspace, *host;
	bool timestamps, setup;
} cfg = {.protocol = 4,
	 .connections = 1,
	 .inflight = 1,
	 .batch_size = 10,
	 .threads = 1,
	 .bytes = 100,
	 .seconds = 5,
	 .host = "127.0.0.1:9042"};

static inline void address_parse(const char *text)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&cfg.address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&cfg.address;
	const char *colon = strrchr(text, ':');
	char host[64];

	snprintf(host, sizeof host, "%.*s", colon ? (int)(colon - text) : 0, text);
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)strtol(colon + 1, NULL, 10));
		cfg.address_len = sizeof *v4;
	} else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)strtol(colon + 1, NULL, 10));
		cfg.address_len = sizeof *v6;
	} else {
		die("--host wants a numeric ADDR:PORT, not '%s'", text);
	}
}

static inline void options_parse(int argc, char **argv)
{
	static const struct option options[] = {
	    {"host", 1, 0, 'h'},       {"protocol", 1, 0, 'p'},	   {"op", 1, 0, 'o'},
	    {"bytes", 1, 0, 'b'},      {"connections", 1, 0, 'c'}, {"inflight", 1, 0, 'i'},
	    {"seconds", 1, 0, 's'},    {"requests", 1, 0, 'r'},	   {"warmup", 1, 0, 'w'},
	    {"auth", 1, 0, 'a'},       {"keyspace", 1, 0, 'k'},	   {"timestamps", 0, 0, 't'},
	    {"batch-size", 1, 0, 'B'}, {"keys", 1, 0, 'K'},	   {"threads", 1, 0, 'T'},
	    {"setup", 0, 0, 'S'},      {"idle", 1, 0, 'I'},	   {0}};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (opt) {
		case 'h':
			cfg.host = optarg;
			break;
		case 'p':
			cfg.protocol = (int)strtol(optarg, NULL, 10);
			break;
		case 'b':
			cfg.bytes = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'c':
			cfg.connections = (int)strtol(optarg, NULL, 10);
			break;
		case 'i':
			cfg.inflight = (int)strtol(optarg, NULL, 10);
			break;
		case 's':
			cfg.seconds = strtod(optarg, NULL);
			break;
		case 'r':
			cfg.requests = strtoull(optarg, NULL, 10);
			break;
		case 'w':
			cfg.warmup = strtod(optarg, NULL);
			break;
		case 'k':
			cfg.keyspace = optarg;
			break;
		case 't':
			cfg.timestamps = true;
			break;
		case 'B':
			cfg.batch_size = (int)strtol(optarg, NULL, 10);
			break;
		case 'K':
			cfg.keys = (int)strtol(optarg, NULL, 10);
			break;
		case 'T':
			cfg.threads = (int)strtol(optarg, NULL, 10);
			break;
		case 'S':
			cfg.setup = true;
			break;
		case 'I':
			cfg.idle = cfg.connections = (int)strtol(optarg, NULL, 10);
			break;
		case 'a':
			cfg.user = strtok(optarg, ":");
			cfg.password = strtok(NULL, "");
			if (!cfg.user || !cfg.password)
				die("--auth wants USER:PASS");
			break;
		case 'o':
			if (strcmp(optarg, "read") && strcmp(optarg, "write") && strcmp(optarg, "batch"))
				die("--op is read, write or batch, not '%s'", optarg);
			cfg.op = *optarg == 'r' ? LOAD_READ : *optarg == 'w' ? LOAD_WRITE : LOAD_BATCH;
			break;
		default:
			die("see the head of tests/bench/cqlload.c for the options");
		}
	if (!cfg.keys)
		cfg.keys = cfg.bytes > 65536 ? 4 : 64;
	if (cfg.protocol < 3 || cfg.protocol > 5 || cfg.connections < 1 || cfg.inflight < 1 ||
	    cfg.inflight > STREAMS_MAX || cfg.threads < 1 || cfg.threads > cfg.connections || cfg.keys < 1 ||
	    cfg.bytes > FRAME_MAX / 2)
		die("--protocol 3..5, --connections ≥ --threads ≥ 1, --inflight 1..%d, --bytes up to %u",
		    STREAMS_MAX, FRAME_MAX / 2);
	address_parse(cfg.host);
}

#endif
