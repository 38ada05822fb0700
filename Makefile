# SPDX-License-Identifier: Apache-2.0
#
# cqlferry: one non-recursive Makefile.
#
#   bpf/*.bpf.c ──clang──▶ build/bpf/*.bpf.o ──bpftool gen object──▶ cqlferry.bpf.o
#                                               └─bpftool gen skeleton──▶ build/gen/cqlferry.skel.h
#   agent/**.c  ──cc─────▶ build/obj/**.o  ──ar──▶ build/libcqlferry.a ──▶ build/cqlferry
#
#   make                build the binary              make V=1              show the commands
#   make check          every test that fits CI       make SAN=address,undefined   sanitizer build in build/san-…
#   make demo           the whole story, real clusters
#   make drivers        seven real drivers through all phases: docs/compatibility.md
#   make bench          BENCH=quick | full | journal | copy
#   make fuzz           FUZZ_SECONDS=60 for each target
#   make soak           every e2e test, the long ones too (docs/testing.md)
#   make install        PREFIX, DESTDIR

BUILD   ?= build
CC      ?= gcc
CLANG   ?= clang
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool) bpftool)
PREFIX  ?= /usr/local
SAN     ?=
V       ?= 0

ifeq ($(origin CC),default)
CC := gcc
endif
comma := ,
ifneq ($(SAN),)
override BUILD := $(BUILD)/san-$(subst $(comma),-,$(SAN))
SANFLAGS := -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
endif
ifeq ($(V),0)
say = @printf '  %-7s %s\n' "$(1)" "$(2)";
endif

VERSION := 0.1.0
PKGS    := libbpf libelf openssl libuv liblz4 snappy libxxhash jansson libcyaml libdeflate libmicrohttpd libcurl libzip
# Evaluated in recipes only, so that `make demo` can install the packages first.
PKG_CFLAGS = $(shell pkg-config --cflags $(filter-out snappy,$(PKGS)) 2>/dev/null)
PKG_LIBS   = $(shell pkg-config --libs $(filter-out snappy,$(PKGS)) 2>/dev/null) -lsnappy -lyaml -lm

WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wno-format-truncation
ifdef CI
# A false alarm of that one depends on what the compiler inlines.
WARN    += -Werror -Wno-error=maybe-uninitialized
endif
CFLAGS  ?= -O2 -g
ALL_CFLAGS = -std=gnu11 $(CFLAGS) $(WARN) $(SANFLAGS) -D_GNU_SOURCE -DCQLFERRY_VERSION='"$(VERSION)"' \
             -Iinclude -Iagent -I$(BUILD)/gen -fno-strict-aliasing -pthread
# The protocol code parses hostile bytes: every silent narrowing is an error waiting.
$(BUILD)/obj/agent/cql/%.o: WARN += -Wconversion -Wno-sign-conversion
LDFLAGS_ALL = $(LDFLAGS) $(SANFLAGS) -pthread

# ---------------------------------------------------------------- the binary
AGENT_SRC := $(sort $(wildcard agent/*/*.c))
MAIN_SRC  := $(wildcard agent/main.c)
BPF_SRC   := $(sort $(wildcard bpf/*.bpf.c))
AGENT_OBJ := $(AGENT_SRC:%.c=$(BUILD)/obj/%.o)
MAIN_OBJ  := $(MAIN_SRC:%.c=$(BUILD)/obj/%.o)
BPF_OBJ   := $(BPF_SRC:bpf/%.bpf.c=$(BUILD)/bpf/%.bpf.o)
SKEL      := $(BUILD)/gen/cqlferry.skel.h
LIB       := $(BUILD)/libcqlferry.a
BIN       := $(BUILD)/cqlferry

.PHONY: all
all: $(BIN)

BPF_ARCH := $(subst x86_64,x86,$(subst aarch64,arm64,$(shell uname -m)))
$(BUILD)/bpf/%.bpf.o: bpf/%.bpf.c
	@mkdir -p $(@D)
	$(call say,BPF,$<)$(Q)$(CLANG) -target bpf -O2 -g -Wall -Wextra -Wno-unused-parameter -mcpu=v3 -D__TARGET_ARCH_$(BPF_ARCH) \
		-I/usr/include/$(shell uname -m)-linux-gnu -Iinclude -Ibpf -MMD -MP -c $< -o $@

$(BUILD)/bpf/cqlferry.o: $(BPF_OBJ)
	$(call say,LINK,$@)$(Q)$(BPFTOOL) gen object $@ $^

$(SKEL): $(BUILD)/bpf/cqlferry.o
	@mkdir -p $(@D)
	$(call say,SKEL,$@)$(Q)$(BPFTOOL) gen skeleton $< name cqlferry_bpf > $@.tmp && mv $@.tmp $@

# A static list: a pattern rule without a recipe would add no prerequisite.
$(filter $(BUILD)/obj/agent/intercept/%,$(AGENT_OBJ)): | $(SKEL)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)$(Q)$(CC) $(ALL_CFLAGS) $(PKG_CFLAGS) -MMD -MP -c $< -o $@

$(LIB): $(AGENT_OBJ)
	$(call say,AR,$@)$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BIN): $(MAIN_OBJ) $(LIB)
	$(call say,LINK,$@)$(Q)$(CC) $(LDFLAGS_ALL) $(MAIN_OBJ) $(LIB) $(PKG_LIBS) -o $@

# ---------------------------------------------------------------- tests
# tests/unit/test_X.c and tests/bpf/test_X.c are cmocka programs, tests/bench/X.c are tools,
# tests/fuzz/fuzz_X.c are libFuzzer targets whose corpora `make check` replays without a fuzzer.
UNIT_BIN  := $(patsubst tests/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/unit/test_*.c)))
BPFT_BIN  := $(patsubst tests/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/bpf/test_*.c)))
BENCH_BIN := $(patsubst tests/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/bench/*.c)))
FUZZ_SRC  := $(sort $(wildcard tests/fuzz/fuzz_*.c))
REPLAY_BIN := $(FUZZ_SRC:tests/%.c=$(BUILD)/tests/%.replay)
FUZZ_BIN  := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/fuzz/%)

$(BUILD)/tests/unit/% $(BUILD)/tests/bpf/%: tests/%.c $(LIB)
$(BUILD)/tests/unit/%: tests/unit/%.c $(LIB)
	@mkdir -p $(@D)
	$(call say,TEST,$<)$(Q)$(CC) $(ALL_CFLAGS) $(PKG_CFLAGS) -Itests -MMD -MP $< $(LDFLAGS_ALL) $(LIB) $(PKG_LIBS) -lcmocka -o $@
$(BUILD)/tests/bpf/%: tests/bpf/%.c $(LIB)
	@mkdir -p $(@D)
	$(call say,TEST,$<)$(Q)$(CC) $(ALL_CFLAGS) $(PKG_CFLAGS) -Itests -MMD -MP $< $(LDFLAGS_ALL) $(LIB) $(PKG_LIBS) -lcmocka -o $@
$(BUILD)/tests/bench/%: tests/bench/%.c $(LIB)
	@mkdir -p $(@D)
	$(call say,TOOL,$<)$(Q)$(CC) $(ALL_CFLAGS) $(PKG_CFLAGS) -Itests -MMD -MP $< $(LDFLAGS_ALL) $(LIB) $(PKG_LIBS) -lm -o $@
$(BUILD)/tests/fuzz/%.replay: tests/fuzz/%.c tests/fuzz/replay.c $(LIB)
	@mkdir -p $(@D)
	$(call say,TEST,$<)$(Q)$(CC) $(ALL_CFLAGS) $(PKG_CFLAGS) -Itests -Wno-missing-prototypes $< tests/fuzz/replay.c $(LDFLAGS_ALL) $(LIB) $(PKG_LIBS) -o $@

PURE_SRC := $(sort $(wildcard agent/cql/*.c agent/base/*.c) agent/migrate/update.c agent/cutover/ledger_format.c \
            agent/mirror/journal_format.c agent/mirror/journal_read.c agent/relay/prepared_record.c \
            agent/control/entry_text.c agent/control/render.c \
            agent/control/handover_gaps.c agent/relay/gap.c agent/net/addr.c agent/net/bundle_json.c agent/net/mode.c \
            $(addprefix agent/copy/,csv.c type.c number.c moment.c value_format.c value_parse.c text.c options.c command.c rc.c))
$(BUILD)/fuzz/%: tests/fuzz/%.c $(PURE_SRC)
	@mkdir -p $(@D)
	$(call say,FUZZ,$<)$(Q)$(CLANG) -std=gnu11 -O1 -g -D_GNU_SOURCE -DCQLFERRY_VERSION='"fuzz"' -Iinclude -Iagent -Itests -fno-strict-aliasing \
		-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all $(PKG_CFLAGS) $< $(PURE_SRC) $(PKG_LIBS) -pthread -o $@

-include $(AGENT_OBJ:.o=.d) $(MAIN_OBJ:.o=.d) $(BPF_OBJ:.o=.d) $(wildcard $(BUILD)/tests/*/*.d)

.PHONY: tests unit check drivers demo bench fuzz soak deps lint clean install
tests: $(BIN) $(UNIT_BIN) $(BPFT_BIN) $(BENCH_BIN) $(REPLAY_BIN)

deps:
	@tests/lab/deps.sh

unit: $(UNIT_BIN) $(REPLAY_BIN)
	@tests/unit/run.sh $(BUILD) $(UNIT_BIN) -- $(REPLAY_BIN)

check:
	@tests/lab/deps.sh
	@$(MAKE) --no-print-directory -j2 tests
	@tests/check.sh $(BUILD)

drivers:
	@tests/lab/deps.sh
	@tests/drivers/build.sh
	@$(MAKE) --no-print-directory -j2 all
	@LAB_ORIGINS=2 tests/e2e/run.sh $(BUILD) test_drivers.py

demo:
	@tests/lab/deps.sh
	@$(MAKE) --no-print-directory -j2 all
	@tests/demo/demo.sh $(BUILD)

bench:
	@tests/lab/deps.sh
	@$(MAKE) --no-print-directory -j2 all tests
	@tests/bench/bench.sh $(BUILD)

FUZZ_SECONDS ?= 60
fuzz:
	@tests/lab/deps.sh
	@$(MAKE) --no-print-directory -j2 $(FUZZ_BIN)
	@tests/fuzz/fuzz.sh $(BUILD) $(FUZZ_SECONDS)

soak:
	@tests/lab/deps.sh
	@$(MAKE) --no-print-directory -j2 all
	@tests/e2e/run.sh $(BUILD)

lint:
	@clang-format --dry-run -Werror $(AGENT_SRC) $(MAIN_SRC) $(wildcard agent/*/*.h include/*.h bpf/*.c bpf/*.h tests/*/*.c)

install: all
	install -D -m 0755 $(BIN) $(DESTDIR)$(PREFIX)/sbin/cqlferry
	for p in docs/man/*.8; do install -D -m 0644 $$p $(DESTDIR)$(PREFIX)/share/man/man8/$${p##*/}; done

clean:
	rm -rf $(BUILD)

.DELETE_ON_ERROR:
.SECONDARY:
