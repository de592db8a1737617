# SPDX-License-Identifier: MIT
#
# The libraries that are linked statically into the wheel's command, from SOURCES into OUT (lib,
# include, lib/pkgconfig), with CC and AR. wrappers/wheel/build calls it. Of each only what is used.
.DELETE_ON_ERROR:
me := $(lastword $(MAKEFILE_LIST))
# Made anew when a flag, a version or the compiler is another one.
recipe := $(me) $(dir $(me))sources $(dir $(me))requirements.txt
FLAGS := -O2 -fPIC -fvisibility=hidden -ffunction-sections -fdata-sections -fno-sanitize=undefined \
	-fomit-frame-pointer -g0 -w -DNDEBUG -ffile-prefix-map=$(SOURCES)=.

sqlite_flags := -DSQLITE_THREADSAFE=1 -DSQLITE_USE_URI=1 -DSQLITE_SECURE_DELETE \
	-DSQLITE_ENABLE_FTS3 -DSQLITE_ENABLE_FTS3_PARENTHESIS -DSQLITE_ENABLE_FTS4 -DSQLITE_ENABLE_FTS5 \
	-DSQLITE_ENABLE_RTREE -DSQLITE_ENABLE_COLUMN_METADATA -DSQLITE_ENABLE_DBSTAT_VTAB \
	-DSQLITE_ENABLE_MATH_FUNCTIONS -DSQLITE_ENABLE_UPDATE_DELETE_LIMIT \
	-DSQLITE_LIKE_DOESNT_MATCH_BLOBS -DSQLITE_OMIT_LOAD_EXTENSION \
	-DSQLITE_MAX_VARIABLE_NUMBER=250000 -DHAVE_ISNAN -DHAVE_USLEEP
zstd_flags := -DZSTD_LEGACY_SUPPORT=0 -DZSTDLIB_VISIBLE= -DZSTDERRORLIB_VISIBLE= -DXXH_NAMESPACE=ZSTD_ \
	-DZSTD_DISABLE_ASM

sqlite := deps/sqlite3/sqlite3.c
zstd := $(patsubst $(SOURCES)/zstd/%,%,$(wildcard $(addprefix $(SOURCES)/zstd/lib/,common/*.c \
	compress/*.c decompress/*.c)))
nettle := sha256.c sha256-compress-n.c write-be32.c
libsodium := $(patsubst $(SOURCES)/libsodium/%,%,$(sort $(shell find $(SOURCES)/libsodium/src -name '*.c')))
libbsd := src/strlcpy.c src/strlcat.c src/reallocarray.c

library = $(OUT)/lib/lib$(1).a
all: $(foreach l,sqlite3 zstd nettle bsd sodium,$(call library,$(l))) $(OUT)/include/.made

define objects
$(2)_objects := $$(patsubst %,$(OUT)/obj/$(2)/%.o,$$($(2)))
$$($(2)_objects): $(OUT)/obj/$(2)/%.o: $(SOURCES)/$(2)/% $(OUT)/include/.made $(recipe)
	@mkdir -p $$(@D)
	@$(CC) $(FLAGS) $$($(2)_flags) -c -o $$@ $$<
$(call library,$(1)): $$($(2)_objects)
	@mkdir -p $$(@D)
	@rm -f $$@
	@$(AR) qcsD $$@ $$^
endef
$(eval $(call objects,sqlite3,sqlite))
$(eval $(call objects,zstd,zstd))
$(eval $(call objects,nettle,nettle))
$(eval $(call objects,bsd,libbsd))
$(eval $(call objects,sodium,libsodium))
nettle_flags := -I$(OUT)/include/nettle -DNETTLE_INTERNAL
# Its portable code: what is for one processor wants to be found by configure.
libsodium_flags := -I$(OUT)/include -I$(OUT)/include/sodium -DCONFIGURED=1 -DSODIUM_STATIC=1 \
	-DNATIVE_LITTLE_ENDIAN=1 -DHAVE_TI_MODE=1 -DHAVE_SYS_RANDOM_H=1 -DHAVE_GETRANDOM=1 \
	-DHAVE_LINUX_COMPATIBLE_GETRANDOM=1 -DHAVE_EXPLICIT_BZERO=1 -DHAVE_PTHREAD=1 \
	-DHAVE_ATOMIC_OPS=1 -DHAVE_WEAK_SYMBOLS=1 -DHAVE_SYS_MMAN_H=1 -DHAVE_MMAP=1 -DHAVE_MPROTECT=1 \
	-DHAVE_MLOCK=1 -DHAVE_MADVISE=1 -DHAVE_POSIX_MEMALIGN=1 -DHAVE_RAISE=1 -DHAVE_NANOSLEEP=1
libbsd_flags := -I$(SOURCES)/libbsd/include -include bsd/string.h

# configure would make these.
version_of = $(shell awk '$$1 == "$(1)" { print $$2 }' $(dir $(me))sources)
nettle_version := $(subst ., ,$(call version_of,nettle))
pc = printf 'Name: %s\nDescription: %s\nVersion: %s\nCflags: -I%s\nLibs: %s\n' $(1) $(1) \
	$(call version_of,$(2)) $(OUT)/include '$(3)' >$(OUT)/lib/pkgconfig/$(1).pc
$(OUT)/include/.made: $(recipe)
	@mkdir -p $(OUT)/include/nettle $(OUT)/include/bsd $(OUT)/lib/pkgconfig
	@cp $(SOURCES)/sqlite/deps/sqlite3/sqlite3.h $(SOURCES)/zstd/lib/zstd.h \
		$(SOURCES)/zstd/lib/zstd_errors.h $(SOURCES)/xxhash/xxhash.h $(OUT)/include
	@cp -r $(SOURCES)/libbsd/include/bsd $(OUT)/include
	@cp $(SOURCES)/nettle/sha2.h $(SOURCES)/nettle/nettle-types.h $(OUT)/include/nettle
	@sed 's/@MAJOR_VERSION@/$(word 1,$(nettle_version))/; s/@MINOR_VERSION@/$(word 2,$(nettle_version))/; s/@NETTLE_USE_MINI_GMP@/0/' \
		$(SOURCES)/nettle/version.h.in >$(OUT)/include/nettle/version.h
	@cp -r $(SOURCES)/libsodium/src/libsodium/include/sodium.h \
		$(SOURCES)/libsodium/src/libsodium/include/sodium $(OUT)/include
	@sed 's/@VERSION@/$(call version_of,libsodium)/; s/@SODIUM_LIBRARY_VERSION_MAJOR@/10/; s/@SODIUM_LIBRARY_VERSION_MINOR@/3/; s/@SODIUM_LIBRARY_MINIMAL_DEF@//' \
		$(SOURCES)/libsodium/src/libsodium/include/sodium/version.h.in \
		>$(OUT)/include/sodium/version.h
	@$(call pc,libsodium,libsodium,-L$(OUT)/lib -lsodium)
	@$(call pc,sqlite3,sqlite,-L$(OUT)/lib -lsqlite3)
	@$(call pc,libzstd,zstd,-L$(OUT)/lib -lzstd)
	@$(call pc,nettle,nettle,-L$(OUT)/lib -lnettle)
	@$(call pc,libbsd,libbsd,-L$(OUT)/lib -lbsd)
	@$(call pc,libxxhash,xxhash,)
	@touch $@
