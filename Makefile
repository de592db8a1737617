# SPDX-License-Identifier: MIT
#
# chromashim: an LD_PRELOAD library that protects a Chroma directory, and its command.
#
# Targets
#   all (default)    $(BUILD)/libchromashim.so and $(BUILD)/chromashim
#   install          command, library, headers, man pages, completions, units and wrappers, to
#                    $(DESTDIR)$(PREFIX); uninstall removes them
#   deb              a Debian package in $(BUILD)/deb (CROSS=)
#   wheel            a package for pip in $(BUILD)/wheel, for Linux with glibc 2.28 or later (ARCH=)
#   npm              packages for npm in $(BUILD)/npm-packages, of the wheel
#   run              set-up, then `chroma run` under the shim in the foreground (DATA=, PORT=)
#   demo             the same unattended: load, kill -9, start again, compare, review
#   check            everything a change has to pass, see tests/run; ends with "N passed, N failed"
#   check-fast       the quick part of it: three minutes
#   check-unit       unit tests            check-e2e      end to end, against real Chroma
#   check-symbols    exports and imports   check-format   clang-format, without changing anything
#   check-scripts    shellcheck            check-aarch64  cross build, unit tests under qemu
#   check-debian     the README as a new user follows it, on a clean Debian 12 and 13
#   check-deb        builds the Debian package, and asks lintian
#   check-wheel      builds the wheel twice, and what it does once it is installed
#   check-docker     the steps of the Dockerfile in chroots, and what they start
#   sanitize         unit tests under ASan and UBSan, the threaded ones also under TSan
#   fuzz             libFuzzer, FUZZ_SECONDS each; fuzz-replay: the corpora with any compiler
#   coverage         which lines of shim/ the unit tests and corpora reach (COVERAGE_FILES="core/undo")
#   bench            what the shim costs (BENCH_ARGS="--json", "--quick"), in time and system calls, and
#                    how fast check, export
#                    and recover are (FORMATS_ARGS="--megabytes 1000 --rounds 5"), and what reading a
#                    long log and acts cost (LOGS_ARGS="--pairs 3")
#   check-releases   check and export on every release of Chroma that still installs: an hour
#   bench-snapshots  what snapshots cost, beside other ways to copy (BENCH_ARGS="--sizes 100,1000")
#   check-hosts      foreign test suites with the library beside without, half an hour to an hour (HOSTS=)
#   check-around     what people do around a backend, all of it: an hour
#   damages          a hundred ways to damage a directory, check and recover judged by what real Chroma
#                    then gives (DAMAGES_ARGS="--snapshot 0.6.3"): half an hour
#   torture          kills real Chroma in its persists, N times a host (1000), and cuts its power
#   format, clean, help
#
# Variables
#   CC CFLAGS LDFLAGS   the compiler and its flags; the project's own are added to them
#   WERROR=1            warnings are errors (always so in check)
#   SAN=address|thread|fuzzer|coverage   build with sanitizers, in a build directory of its own
#   CROSS=TRIPLE        cross build with TRIPLE-gcc, in a build directory of its own
#   BUILD               the build directory
#   PREFIX DESTDIR LIBDIR BINDIR INCLUDEDIR DOCDIR SHAREDIR MANDIR UNITDIR BASHCOMPDIR ZSHCOMPDIR
#                    where install puts things
#   V=1                 show the commands

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DOCDIR ?= $(PREFIX)/share/doc/chromashim
SHAREDIR ?= $(PREFIX)/share/chromashim
MANDIR ?= $(PREFIX)/share/man
UNITDIR ?= $(PREFIX)/lib/systemd/system
BASHCOMPDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHCOMPDIR ?= $(PREFIX)/share/zsh/site-functions
DATA ?= ./chroma_data
PORT ?= 8000
FUZZ_SECONDS ?= 30
BUILD ?= build$(if $(SAN),/$(SAN))$(if $(CROSS),/$(CROSS))
PKG_CONFIG ?= pkg-config
ifneq ($(CROSS),)
CC = $(CROSS)-gcc
AR = $(CROSS)-ar
export PKG_CONFIG_LIBDIR = /usr/lib/$(CROSS)/pkgconfig:/usr/share/pkgconfig
else ifeq ($(origin CC),default)
CC = gcc
endif

CFLAGS ?= -O2 -g
SAN_address := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
SAN_thread := -fsanitize=thread
SAN_coverage := --coverage -O0
SAN_fuzzer := -fsanitize=fuzzer-no-link,address,undefined
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE -Ishim -Iinclude $(LIB_CFLAGS) $(CFLAGS) \
	-fPIC -fvisibility=hidden -ffunction-sections -fdata-sections -ftls-model=initial-exec \
	-Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef \
	$(if $(WERROR),-Werror) $(SAN_$(SAN))
ALL_LDFLAGS = $(LDFLAGS) -Wl,--gc-sections -Wl,-z,relro,-z,now $(SAN_$(SAN))
# The bodies define open, open64 and __open_2 themselves, which fortified headers would redirect;
# a tail call to dlsym(RTLD_NEXT) would hide from it who is asking.
PRELOAD_FLAGS = -U_FORTIFY_SOURCE $(if $(filter %/real.c,$<),-fno-optimize-sibling-calls)

# What compiles nothing by itself needs no libraries to be there.
ifneq ($(filter-out clean help format check% sanitize fuzz fuzz-replay coverage run demo bench bench-snapshots damages torture uninstall deb wheel npm,$(or $(MAKECMDGOALS),all)),)
# Without its overlay, which would put other headers before those that shim/preload stands in for.
PACKAGES := sqlite3 libbsd nettle libzstd libxxhash libsodium
ifneq ($(shell $(PKG_CONFIG) --exists --print-errors $(PACKAGES) || echo missing),)
$(error Libraries are missing, see above; `wrappers/setup build` names and installs them)
endif
# System headers are not ours to warn about.
LIB_CFLAGS := $(patsubst -I%,-isystem %,$(shell $(PKG_CONFIG) --cflags $(PACKAGES)))
LIBS := $(shell $(PKG_CONFIG) --libs $(filter-out libxxhash,$(PACKAGES))) -lm -lpthread
endif

core_src := $(wildcard shim/core/*/*.c)
preload_src := $(wildcard shim/preload/*/*.c)
command_src := $(wildcard shim/command/*/*.c)
unit_src := $(wildcard tests/unit/test_*.c)
fuzz_names := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
headers := $(wildcard include/*.h)
objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
cores := $(BUILD)/libcommand.a $(BUILD)/libcore.a

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-6s %s\n' $(1) $@;) mkdir -p $(@D)
link = $(Q)$(CC) $(ALL_LDFLAGS) $(LINK_FLAGS) -o $@ $(filter %.o %.a,$^)

all: $(BUILD)/libchromashim.so $(BUILD)/chromashim
export CHROMASHIM_BUILD = $(BUILD)
.PHONY: all install uninstall deb wheel npm run demo check check-fast check-around check-hosts check-releases check-unit check-e2e check-symbols check-format \
	check-scripts check-aarch64 check-deb check-debian check-docker check-wheel sanitize fuzz fuzz-replay coverage bench bench-snapshots damages torture format clean help FORCE
.DELETE_ON_ERROR:
.SECONDARY:

# The stamp changes, and so everything is made anew, when the compiler or a flag does.
flags_now = $(subst ','\'',$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(LIBS))
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(flags_now)' | cmp -s - $@ || echo '$(flags_now)' >$@

$(BUILD)/obj/shim/preload/%.o: EXTRA_FLAGS = $(PRELOAD_FLAGS)
$(BUILD)/obj/shim/command/run/library.o: EXTRA_FLAGS = -DCHROMASHIM_LIBDIR='"$(LIBDIR)"'
$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) $(EXTRA_FLAGS) -MMD -MP -c -o $@ $<

# Archives, so that only what is needed is linked in; made anew, so that no removed file stays, and
# appended to, since files of two folders may have the same name.
$(BUILD)/libcore.a: $(call objects,$(core_src))
$(BUILD)/libcommand.a: $(call objects,$(command_src))
$(BUILD)/libunit.a: $(call objects,$(filter-out $(unit_src),$(wildcard tests/unit/*.c)))
$(BUILD)/lib%.a: $(BUILD)/flags
	$(call say,AR)
	$(Q)rm -f $@ && $(AR) qcs $@ $(filter %.o,$^)

# Only libc, and no symbol left open, except that sanitized code has some that its host provides.
$(BUILD)/libchromashim.so: LINK_FLAGS = -shared $(if $(SAN),,-Wl,-z,defs) -Wl,-soname,$(@F)
$(BUILD)/libchromashim.so: $(call objects,$(preload_src)) $(BUILD)/libcore.a
	$(call say,LINK)
	$(link)

# The same, with faults on demand: see shim/preload/place/faults.h.
faulty := $(preload_src) $(shell grep -l core/base/sys.h $(core_src))
$(BUILD)/obj-faults/%.o: %.c $(BUILD)/flags
	$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) $(PRELOAD_FLAGS) -DCHROMASHIM_FAULTS -MMD -MP -c -o $@ $<
$(BUILD)/libchromashim-faults.so: LINK_FLAGS = -shared -Wl,-soname,$(@F)
$(BUILD)/libchromashim-faults.so: $(patsubst %.c,$(BUILD)/obj-faults/%.o,$(faulty)) $(BUILD)/libcore.a
	$(call say,LINK)
	$(link)

# By the one symbol it exports, the library knows the command and stays out of it.
marker := chromashim_command_marker
EXPORT_MARKER ?= -Wl,--export-dynamic-symbol=$(marker)
$(BUILD)/chromashim: LINK_FLAGS = $(EXPORT_MARKER) -Wl,-u,$(marker)
$(BUILD)/chromashim: $(call objects,shim/command/main.c) $(cores)
	$(call say,LINK)
	$(link) $(LIBS)

$(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(BUILD)/libunit.a $(cores)
	$(call say,LINK)
	$(link) -lcmocka $(LIBS)

# The library's own objects without the exported names: the test calls the bodies, and libc itself.
inside := $(filter-out %/calls/entry.o,$(patsubst %.c,$(BUILD)/obj-faults/%.o,$(faulty)))
$(BUILD)/unit/test_inside_%: $(BUILD)/obj/tests/unit/test_inside_%.o $(inside) $(BUILD)/libunit.a $(cores)
	$(call say,LINK)
	$(link) -lcmocka $(LIBS)

$(BUILD)/fuzz/%-replay: $(BUILD)/obj/tests/fuzz/%.o $(BUILD)/obj/tests/fuzz/replay_main.o $(BUILD)/libcore.a
	$(call say,LINK)
	$(link) $(LIBS)

$(BUILD)/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(BUILD)/libcore.a
	$(call say,LINK)
	$(link) -fsanitize=fuzzer $(LIBS)

$(BUILD)/bench/micro: $(BUILD)/obj/tests/bench/micro.o
	$(call say,LINK)
	$(link)

$(BUILD)/bench/long_log: $(BUILD)/obj/tests/bench/long_log.o $(BUILD)/libcore.a
	$(call say,LINK)
	$(link) $(LIBS)

$(BUILD)/bench/make_log: $(BUILD)/obj/tests/bench/make_log.o $(BUILD)/libcore.a
	$(call say,LINK)
	$(link) $(LIBS)

# What tests/run builds.
.PHONY: unit-tests replays fuzzers
unit-tests: $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(unit_src))
replays: $(patsubst %,$(BUILD)/fuzz/%-replay,$(fuzz_names))
fuzzers: $(patsubst %,$(BUILD)/fuzz/%,$(fuzz_names))

# What a command says that runs here: that of another machine cannot be asked.
DOC_COMMAND ?= $(if $(CROSS),build,$(BUILD))/chromashim
docs = $(BUILD)/docs/chromashim.1
$(docs): wrappers/generate-docs shim/doc/news.md $(DOC_COMMAND)
	$(call say,DOCS)
	$(Q)wrappers/generate-docs $(DOC_COMMAND) $(@D)

# Renamed over what is there: a backend that has it loaded keeps its own, and one that starts
# meanwhile finds the old file or the new one, whole.
put_over = install -m 755 $(1) $(DESTDIR)$(2)/.$(notdir $(1)).new && \
	mv -f $(DESTDIR)$(2)/.$(notdir $(1)).new $(DESTDIR)$(2)/$(notdir $(1))

units := $(wildcard wrappers/systemd/*)
install: all $(docs)
	install -d $(addprefix $(DESTDIR),$(BINDIR) $(LIBDIR) $(INCLUDEDIR) $(DOCDIR) \
		$(MANDIR)/man1 $(MANDIR)/man5 $(UNITDIR) $(BASHCOMPDIR) $(ZSHCOMPDIR) $(SHAREDIR))
	$(call put_over,$(BUILD)/libchromashim.so,$(LIBDIR))
	$(call put_over,$(BUILD)/chromashim,$(BINDIR))
	$(call put_over,wrappers/chromashim-launch,$(BINDIR))
	install -m 644 $(headers) $(DESTDIR)$(INCLUDEDIR)
	install -m 644 README.md shim/doc/news.md $(DESTDIR)$(DOCDIR)
	install -m 644 $(docs) $(BUILD)/docs/chromashim-launch.1 $(DESTDIR)$(MANDIR)/man1
	install -m 644 $(BUILD)/docs/chromashim.conf.5 $(DESTDIR)$(MANDIR)/man5
	install -m 644 $(BUILD)/docs/chromashim $(DESTDIR)$(BASHCOMPDIR)
	install -m 644 $(BUILD)/docs/_chromashim $(DESTDIR)$(ZSHCOMPDIR)
	install -m 644 wrappers/ecosystem.config.js $(DESTDIR)$(SHAREDIR)
	install -d $(DESTDIR)$(SHAREDIR)/monitoring
	install -m 644 $(wildcard wrappers/monitoring/*) $(DESTDIR)$(SHAREDIR)/monitoring
	cp -r --no-preserve=mode,ownership wrappers/python $(DESTDIR)$(SHAREDIR)
	find $(DESTDIR)$(SHAREDIR)/python -depth '(' -name __pycache__ -o -name '*.egg-info' -o \
		-name build ')' -exec rm -rf {} +
	@for unit in $(notdir $(units)); do \
		sed 's|/usr/local/bin/chromashim|$(BINDIR)/chromashim|' "wrappers/systemd/$$unit" \
			>"$(DESTDIR)$(UNITDIR)/$$unit" && chmod 644 "$(DESTDIR)$(UNITDIR)/$$unit"; \
	done

uninstall:
	rm -f $(addprefix $(DESTDIR)$(BINDIR)/,chromashim chromashim-launch) \
		$(addprefix $(DESTDIR)$(MANDIR)/man1/,chromashim.1 chromashim-launch.1) \
		$(DESTDIR)$(MANDIR)/man5/chromashim.conf.5 \
		$(DESTDIR)$(LIBDIR)/libchromashim.so \
		$(DESTDIR)$(BASHCOMPDIR)/chromashim $(DESTDIR)$(ZSHCOMPDIR)/_chromashim \
		$(addprefix $(DESTDIR)$(UNITDIR)/,$(notdir $(units))) \
		$(addprefix $(DESTDIR)$(INCLUDEDIR)/,$(notdir $(headers)))
	rm -rf $(DESTDIR)$(DOCDIR) $(DESTDIR)$(SHAREDIR)

deb:
	@CROSS=$(CROSS) wrappers/debian/build $(BUILD)/deb

wheel:
	@wrappers/setup wheel && wrappers/wheel/build $(BUILD)/wheel $(ARCH)

npm: wheel
	@python3 wrappers/npm/pack.py $(BUILD)/wheel $(BUILD)/npm-packages

prepared = wrappers/setup build run $(1) && $(MAKE) --no-print-directory all
run:
	@$(prepared) && exec wrappers/run --path '$(DATA)' --port '$(PORT)'
demo:
	@$(prepared) && exec build/venv/bin/python wrappers/demo.py
bench:
	@$(call prepared,bench) $(BUILD)/bench/micro $(BUILD)/bench/long_log && \
		build/venv/bin/python tests/bench/bench.py $(BENCH_ARGS) && \
		build/venv/bin/python tests/bench/calls.py && \
		build/venv/bin/python tests/bench/formats.py $(FORMATS_ARGS) && \
		exec build/venv/bin/python tests/bench/logs.py $(LOGS_ARGS)

bench-snapshots:
	@$(call prepared,bench) && exec build/venv/bin/python tests/bench/snapshots.py $(BENCH_ARGS)

N ?= 1000
torture:
	@$(call prepared,check) && exec build/venv/bin/python tests/torture.py $(N)

damages:
	@$(call prepared,check damages) && exec build/venv/bin/python tests/damages.py $(DAMAGES_ARGS)

check:
	@tests/run
check-fast:
	@tests/run format scripts fast
check-releases:
	@$(call prepared,) && exec build/venv/bin/python tests/releases.py $(RELEASES)
check-around:
	@$(call prepared,check) && $(MAKE) --no-print-directory $(BUILD)/libchromashim-faults.so && \
		exec build/venv/bin/python tests/e2e/around.py $(AROUND_ARGS)
check-hosts:
	@$(call prepared,hosts) && exec tests/check-hosts $(HOSTS)
check-unit check-e2e check-symbols check-format check-scripts check-aarch64 check-deb check-debian check-docker check-wheel:
	@tests/run $(@:check-%=%)
sanitize fuzz-replay:
	@tests/run $@
coverage:
	@$(MAKE) --no-print-directory SAN=coverage unit-tests replays && exec tests/coverage $(COVERAGE_FILES)
fuzz:
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/run fuzz

format:
	clang-format -i $(wildcard shim/*/*.[ch] shim/*/*/*.[ch] include/*.h tests/*/*.[ch])
clean:
	rm -rf build
help:
	@sed -n '/^# Targets/,/^$$/s/^# \{0,1\}//p' Makefile

-include $(shell find $(BUILD)/obj $(BUILD)/obj-faults -name '*.d' 2>/dev/null)
