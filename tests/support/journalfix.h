/*
 * A journal over an image file, for the unit tests of journal/: fixed layout, one chunk pair of 1 MiB, 1 MiB of log. A crash is a copy of
 * the file as it is (what kill -9 leaves); damage is done to the file while nobody has it open.
 */
#ifndef TESTS_JOURNALFIX_H
#define TESTS_JOURNALFIX_H

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "journal/chunk.h"
#include "journal/journal.h"
#include "journal/root.h"
#include "media/media.h"
#include "tests/support/image.h"

#define FIX_MIB (1ull << 20)
#define FIX_IMAGE_BYTES (32 * FIX_MIB)
#define FIX_FIXED_BYTES (128u << 10)
#define FIX_LOG_BYTES (FIX_MIB + 4096)
#define FIX_CHUNK_SHIFT 20
#define FIX_SPACE (18 * FIX_MIB) /* free for more chunks */
#define FIX_REPORTS 64

struct journalfix {
	char path[256];
	struct super super;
	devoff_t first[2];
	struct media *media;
	struct journal *journal;
	struct journal_options options;
	struct why why;
	unsigned reports;
	struct {
		maddr_t address;
		unsigned copy;
		char reason[64];
	} report[FIX_REPORTS];
};

static inline void fix_bad_copy(void *arg, maddr_t address, unsigned copy, devoff_t offset, const char *reason)
{
	struct journalfix *fix = arg;
	unsigned i = __atomic_fetch_add(&fix->reports, 1, __ATOMIC_RELAXED);

	if (i >= FIX_REPORTS)
		return;
	fix->report[i].address = address;
	fix->report[i].copy = copy;
	snprintf(fix->report[i].reason, sizeof(fix->report[i].reason), "%s", reason);
}

static inline int fix_media_open(struct journalfix *fix)
{
	struct media_options options = { .create_bytes = FIX_IMAGE_BYTES, .readonly = fix->options.readonly };
	int error = media_open(fix->path, &options, &fix->why, &fix->media);

	if (!error)
		error = media_poison_load(fix->media, NULL, &fix->why);
	return error;
}

static inline int fix_open(struct journalfix *fix)
{
	int error = fix_media_open(fix);

	ck_assert_msg(!error, "%s", fix->why.text);
	fix->reports = 0;
	error = journal_open(fix->media, &fix->super, &fix->options, &fix->why, &fix->journal);
	if (error) {
		media_close(fix->media);
		fix->media = NULL;
		fix->journal = NULL;
		return error;
	}
	journal_set_bad_copy_handler(fix->journal, fix_bad_copy, fix);
	return 0;
}

static inline int fix_close(struct journalfix *fix)
{
	int error = journal_close(fix->journal);
	int synced = media_close(fix->media);

	fix->journal = NULL;
	fix->media = NULL;
	return error ? error : synced;
}

/* Holes are kept: an image is mostly that. */
static inline void fix_copy_file(const char *from, const char *to)
{
	static uint8_t bytes[1 << 18];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	off_t at = 0, end = lseek(in, 0, SEEK_END), hole;

	ck_assert(in >= 0 && out >= 0 && !ftruncate(out, end));
	while ((at = lseek(in, at, SEEK_DATA)) >= 0) {
		for (hole = lseek(in, at, SEEK_HOLE); at < hole;) {
			ssize_t got = pread(in, bytes, (size_t)(hole - at) < sizeof(bytes) ? (size_t)(hole - at) : sizeof(bytes), at);

			ck_assert_int_gt(got, 0);
			ck_assert_int_eq(pwrite(out, bytes, (size_t)got, at), got);
			at += got;
		}
	}
	close(in);
	close(out);
}

/* End the mount, with the image left as it was at this moment. */
static inline void fix_crash(struct journalfix *fix)
{
	char copy[300];

	snprintf(copy, sizeof(copy), "%s.crash", fix->path);
	fix_copy_file(fix->path, copy);
	fix_close(fix);
	ck_assert_int_eq(rename(copy, fix->path), 0);
}

static inline void fix_format(struct journalfix *fix, unsigned copies)
{
	struct super *super = &fix->super;
	struct area areas[] = {
		[AREA_JOURNAL] = { { 4 * FIX_MIB, 6 * FIX_MIB }, FIX_LOG_BYTES },
		[AREA_FIXED] = { { 8 * FIX_MIB, 10 * FIX_MIB }, FIX_FIXED_BYTES },
	};

	for (unsigned i = 0; i < FORMAT_UUID_BYTES; i++)
		super->meta_uuid[i]++;
	super->version = FORMAT_VERSION;
	super->size_bytes = FIX_IMAGE_BYTES;
	super->chunk_shift = FIX_CHUNK_SHIFT;
	super->copies = (uint8_t)copies;
	for (unsigned i = 0; i < sizeof(areas) / sizeof(areas[0]); i++) {
		if (copies == 1)
			areas[i].copy[1] = 0;
		super->areas[i] = areas[i];
	}
	fix->first[0] = 12 * FIX_MIB;
	fix->first[1] = copies == 2 ? 14 * FIX_MIB : 0;
	ck_assert_int_eq(fix_media_open(fix), 0);
	ck_assert_int_eq(journal_format(fix->media, super, fix->first), 0);
	ck_assert_int_eq(media_close(fix->media), 0);
	fix->media = NULL;
}

static inline void fix_create(struct journalfix *fix, unsigned copies)
{
	static unsigned number;

	memset(fix, 0, sizeof(*fix));
	image_name(fix->path, sizeof(fix->path), "journal", number++);
	fix->options.cache_bytes = 4 * FIX_MIB;
	fix_format(fix, copies);
}

static inline void fix_create_open(struct journalfix *fix, unsigned copies)
{
	fix_create(fix, copies);
	ck_assert_msg(!fix_open(fix), "%s", fix->why.text);
}

static inline void fix_destroy(struct journalfix *fix)
{
	if (fix->journal)
		fix_close(fix);
	image_remove(fix->path);
}

static inline void fix_read_file(struct journalfix *fix, devoff_t offset, void *bytes, size_t length)
{
	int fd = open(fix->path, O_RDONLY);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, bytes, length, (off_t)offset), (ssize_t)length);
	close(fd);
}

static inline void fix_write_file(struct journalfix *fix, devoff_t offset, const void *bytes, size_t length)
{
	int fd = open(fix->path, O_WRONLY);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, bytes, length, (off_t)offset), (ssize_t)length);
	close(fd);
}

/* Spoil some bytes in the middle of a range of the file. */
static inline void fix_spoil(struct journalfix *fix, devoff_t offset, size_t length)
{
	uint8_t bytes[4096];

	fix_read_file(fix, offset, bytes, length);
	for (size_t i = 0; i < length; i++)
		bytes[i] ^= 0x5a;
	fix_write_file(fix, offset, bytes, length);
}

/* --- blocks with a number in them ------------------------------------------------------------------------------------ */

static inline struct tx *fix_begin(struct journalfix *fix)
{
	struct tx *tx = NULL;

	ck_assert_int_eq(tx_begin(fix->journal, TX_NORMAL, &tx), 0);
	return tx;
}

static inline void fix_fill(struct buf *buf, uint64_t value)
{
	uint64_t *words = (uint64_t *)(buf->data + 64);

	for (size_t i = 0; i < (BLOCK_BYTES - 64) / 8; i++)
		words[i] = value;
}

static inline maddr_t fix_create_block(struct tx *tx, uint64_t value)
{
	struct buf *buf = NULL;
	maddr_t address;

	ck_assert_int_eq(buf_create(tx, FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf), 0);
	fix_fill(buf, value);
	address = buf->address;
	buf_put(buf);
	return address;
}

static inline void fix_set_word(struct tx *tx, maddr_t address, unsigned word, uint64_t value)
{
	struct buf *buf = NULL;

	ck_assert_int_eq(buf_get(tx_journal(tx), address, FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf), 0);
	ck_assert_int_eq(tx_join(tx, buf), 0);
	((uint64_t *)(buf->data + 64))[word] = value;
	buf_put(buf);
}

static inline void fix_destroy_block(struct tx *tx, maddr_t address)
{
	struct buf *buf = NULL;

	ck_assert_int_eq(buf_get_any(tx_journal(tx), address, &buf), 0);
	ck_assert_int_eq(buf_destroy(tx, buf), 0);
}

static inline int fix_get_word(struct journalfix *fix, maddr_t address, unsigned word, uint64_t *value)
{
	struct buf *buf = NULL;
	int error;

	journal_read_begin(fix->journal);
	error = buf_get(fix->journal, address, FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf);
	if (!error) {
		*value = ((uint64_t *)(buf->data + 64))[word];
		buf_put(buf);
	}
	journal_read_end(fix->journal);
	return error;
}

static inline uint64_t fix_word(struct journalfix *fix, maddr_t address, unsigned word)
{
	uint64_t value = 0;

	ck_assert_int_eq(fix_get_word(fix, address, word, &value), 0);
	return value;
}

/* One transaction each. */
static inline maddr_t fix_new_block(struct journalfix *fix, uint64_t value)
{
	struct tx *tx = fix_begin(fix);
	maddr_t address = fix_create_block(tx, value);

	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	return address;
}

static inline uint64_t fix_change(struct journalfix *fix, maddr_t address, unsigned word, uint64_t value)
{
	struct tx *tx = fix_begin(fix);
	uint64_t sequence = 0;

	fix_set_word(tx, address, word, value);
	ck_assert_int_eq(tx_commit(tx, &sequence), 0);
	return sequence;
}

static inline devoff_t fix_place(struct journalfix *fix, maddr_t address, unsigned copy)
{
	if (maddr_is_fixed(address))
		return fix->super.areas[AREA_FIXED].copy[copy] + address * BLOCK_BYTES;
	ck_assert(maddr_chunk(address) == 0);
	return fix->first[copy] + maddr_index(address) * BLOCK_BYTES;
}

static inline devoff_t fix_ring(struct journalfix *fix, unsigned copy)
{
	return fix->super.areas[AREA_JOURNAL].copy[copy] + BLOCK_BYTES;
}

static inline int fix_run(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

#endif
