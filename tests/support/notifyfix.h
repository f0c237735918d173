/*
 * The failure pipeline over an image file without fs/: a journal, free space and a reverse map with
 * the fixed areas in it, files that are nothing but rmap records, and a holder that repairs
 * metadata and remembers what it was told. For the unit tests of notify/.
 */
#ifndef TESTS_NOTIFYFIX_H
#define TESTS_NOTIFYFIX_H

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "journal/chunk.h"
#include "notify/internal.h"
#include "notify/notify.h"
#include "tests/support/expect.h"
#include "tests/support/fsfile.h"
#include "tests/support/image.h"

#define NFIX_IMAGE_BYTES (34ull << 20)
#define NFIX_CHUNK_SHIFT 21
#define NFIX_DATA_BLOCK 5120ull /* 20 MiB: free, but for superblock slots none beyond 14 MiB */
#define NFIX_MAX_KNOWN 64

struct notifyfix {
	char path[256];
	struct super super;
	devoff_t first[2];
	struct media *media;
	struct poison_log *log;
	struct journal *journal;
	struct alloc *alloc;
	struct rmap rmap;
	struct event_bus *events;
	struct event_subscriber *subscriber;
	struct notify *notify;
	bool readonly;
	/* What the holder was asked. */
	atomic_uint file_failures, metadata_failures, super_failures, causes_done, shutdowns;
	atomic_bool gate_is_closed; /* file_failure waits here, with everything before it done and
				       nothing after */
	atomic_bool is_at_gate;
	/* Keep what a crash would leave before each transaction of the pipeline, as "step0", ... */
	atomic_bool save_steps;
	unsigned steps;
};

static inline void nfix_save_step(struct notifyfix *fix);

static inline void nfix_wait_at_gate(struct notifyfix *fix)
{
	for (int i = 0; i < 20000 && !atomic_load(&fix->is_at_gate); i++)
		usleep(1000);
	ck_assert(atomic_load(&fix->is_at_gate));
}

static inline void nfix_open_gate(struct notifyfix *fix)
{
	atomic_store(&fix->gate_is_closed, false);
}

static inline int nfix_file_failure(void *holder, const struct notify_file_failure *failure,
				    struct event *event)
{
	struct notifyfix *fix = holder;

	(void)failure;
	(void)event;
	atomic_fetch_add(&fix->file_failures, 1);
	for (int i = 0; i < 20000 && atomic_load(&fix->gate_is_closed); i++) {
		atomic_store(&fix->is_at_gate, true);
		usleep(1000);
	}
	atomic_store(&fix->is_at_gate, false);
	return 0;
}

static inline int nfix_metadata_failure(void *holder, maddr_t address, unsigned copy,
					devoff_t offset, struct event *event)
{
	struct notifyfix *fix = holder;
	unsigned repaired;
	struct buf *buf;
	int rc;

	(void)copy;
	atomic_fetch_add(&fix->metadata_failures, 1);
	rc = journal_repair(fix->journal, address, &repaired);
	if (rc == 0 && repaired == 0 && media_clear(fix->media, offset, BLOCK_BYTES) == 0)
		event->action = "cleared";
	if (rc == 0)
		return 0;
	journal_read_begin(fix->journal);
	if (buf_get_any(fix->journal, address, &buf) == 0) {
		event->action = "replica";
		buf_put(buf);
	} else {
		event->type = EVENT_METADATA_LOST;
	}
	journal_read_end(fix->journal);
	return 0;
}

static inline int nfix_super_failure(void *holder, unsigned slot, struct event *event)
{
	struct notifyfix *fix = holder;

	(void)event;
	atomic_fetch_add(&fix->super_failures, 1);
	return media_clear(fix->media, super_slot_offset(slot), BLOCK_BYTES);
}

static inline void nfix_failure_done(void *holder, uint64_t cause_id)
{
	struct notifyfix *fix = holder;

	(void)cause_id;
	atomic_fetch_add(&fix->causes_done, 1);
}

static inline void nfix_shutdown(void *holder, const char *reason)
{
	struct notifyfix *fix = holder;

	(void)reason;
	atomic_fetch_add(&fix->shutdowns, 1);
	journal_shutdown(fix->journal);
}

static inline int nfix_tx_begin(void *holder, struct tx **tx)
{
	struct notifyfix *fix = holder;

	if (fix->save_steps)
		nfix_save_step(fix);
	return tx_begin(fix->journal, TX_RESERVE, tx);
}

static const struct notify_holder_ops nfix_ops = {
    .file_failure = nfix_file_failure,
    .metadata_failure = nfix_metadata_failure,
    .super_failure = nfix_super_failure,
    .failure_done = nfix_failure_done,
    .shutdown = nfix_shutdown,
    .tx_begin = nfix_tx_begin,
};

/* --- opening --- */

static inline void nfix_open_media(struct notifyfix *fix)
{
	struct media_options options = {.readonly = fix->readonly,
					.create_bytes = fix->readonly ? 0 : NFIX_IMAGE_BYTES};
	struct why why = {""};

	ck_assert_msg(media_open(fix->path, &options, &why, &fix->media) == 0, "%s", why.text);
	ck_assert_msg(media_poison_load(fix->media, NULL, &why) == 0, "%s", why.text);
}

static inline size_t nfix_know(struct notifyfix *fix, struct notify_known *known)
{
	struct media_poison *list = NULL;
	size_t count = 0, kept = 0;

	ck_assert_int_eq(media_poison_list(fix->media, &list, &count), 0);
	for (size_t i = 0; i < count; i++) {
		if (list[i].latent)
			continue;
		ck_assert_int_eq(media_bad_add(fix->media, list[i].offset, list[i].length), 0);
		expect(kept < NFIX_MAX_KNOWN);
		known[kept++] =
		    (struct notify_known){list[i].offset, list[i].length, FAILURE_INJECTED};
	}
	free(list);
	return kept;
}

/* Everything up to the journal: what may be read before notify_create(). */
static inline void nfix_open_journal(struct notifyfix *fix)
{
	struct journal_options options = {.readonly = fix->readonly, .cache_bytes = 4 << 20};
	struct why why = {""};

	ck_assert_int_eq(poison_log_open(fix->media, &fix->super, &fix->log), 0);
	ck_assert_msg(journal_open(fix->media, &fix->super, &options, &why, &fix->journal) == 0,
		      "%s", why.text);
	ck_assert_int_eq(alloc_create(fix->journal, &fix->alloc), 0);
	rmap_init(&fix->rmap, fix->journal);
}

static inline void nfix_start(struct notifyfix *fix, const struct notify_known *known, size_t count)
{
	const struct notify_setup setup = {
	    .journal = fix->journal,
	    .rmap = &fix->rmap,
	    .alloc = fix->alloc,
	    .log = fix->log,
	    .events = fix->events,
	    .ops = &nfix_ops,
	    .holder = fix,
	    .known = known,
	    .count_known = count,
	};

	ck_assert_int_eq(notify_create(&setup, &fix->notify), 0);
}

static inline void nfix_mount(struct notifyfix *fix)
{
	struct notify_known known[NFIX_MAX_KNOWN];
	size_t count;

	nfix_open_media(fix);
	count = nfix_know(fix, known);
	ck_assert_int_eq(event_bus_create(&fix->events), 0);
	ck_assert_int_eq(event_subscribe(fix->events, 100000, &fix->subscriber), 0);
	nfix_open_journal(fix);
	nfix_start(fix, known, count);
	ck_assert_int_eq(notify_wait(fix->notify, 20000), 0);
}

static inline void nfix_unmount(struct notifyfix *fix)
{
	notify_destroy(fix->notify);
	alloc_destroy(fix->alloc);
	journal_close(fix->journal);
	poison_log_close(fix->log);
	media_close(fix->media);
	event_unsubscribe(fix->subscriber);
	event_bus_destroy(fix->events);
	fix->notify = NULL;
	fix->media = NULL;
}

static inline void nfix_remount(struct notifyfix *fix)
{
	nfix_unmount(fix);
	nfix_mount(fix);
}

/* What kill -9 at this moment leaves, image and armed poison, is what the next mount sees. */
static inline void nfix_save_crash(struct notifyfix *fix, const char *name)
{
	char from[300], to[300];

	snprintf(to, sizeof(to), "%s.%s", fix->path, name);
	ck_assert_int_eq(fsfile_copy(fix->path, to), 0);
	snprintf(from, sizeof(from), "%s.poison", fix->path);
	snprintf(to, sizeof(to), "%s.%s.poison", fix->path, name);
	unlink(to);
	fsfile_copy(from, to);
}

static inline void nfix_save_step(struct notifyfix *fix)
{
	char name[32];

	snprintf(name, sizeof(name), "step%u", fix->steps++);
	nfix_save_crash(fix, name);
}

static inline void nfix_load_crash(struct notifyfix *fix, const char *name)
{
	char from[300], to[300];

	snprintf(from, sizeof(from), "%s.%s", fix->path, name);
	ck_assert_int_eq(rename(from, fix->path), 0);
	snprintf(from, sizeof(from), "%s.%s.poison", fix->path, name);
	snprintf(to, sizeof(to), "%s.poison", fix->path);
	unlink(to);
	rename(from, to);
}

static inline void nfix_crash(struct notifyfix *fix)
{
	nfix_save_crash(fix, "crash");
	nfix_unmount(fix);
	nfix_load_crash(fix, "crash");
}

/* --- making --- */

static inline void nfix_own(struct notifyfix *fix, struct tx *tx, devoff_t at, uint64_t length,
			    uint64_t owner, uint64_t offset)
{
	const struct rmap_record record = {.start = at >> BLOCK_SHIFT,
					   .count = length >> BLOCK_SHIFT,
					   .owner = owner,
					   .offset = offset};

	ck_assert_int_eq(rmap_insert(&fix->rmap, tx, &record), 0);
	ck_assert_int_eq(alloc_take_exact(fix->alloc, tx, record.start, record.count), 0);
}

static inline void nfix_fill_trees(struct notifyfix *fix)
{
	struct tx *tx;

	ck_assert_int_eq(tx_begin(fix->journal, TX_RESERVE, &tx), 0);
	ck_assert_int_eq(alloc_give(fix->alloc, tx, 0, NFIX_IMAGE_BYTES >> BLOCK_SHIFT), 0);
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
		nfix_own(fix, tx, super_slot_offset(slot), BLOCK_BYTES, OWNER(OWNER_SUPERBLOCK),
			 slot);
	for (unsigned copy = 0; copy < 2; copy++) {
		const struct super *super = &fix->super;
		const uint64_t high = (uint64_t)copy << 32;

		nfix_own(fix, tx, super->areas[AREA_JOURNAL].copy[copy],
			 super->areas[AREA_JOURNAL].length_bytes, OWNER(OWNER_JOURNAL), high);
		nfix_own(fix, tx, super->areas[AREA_POISON_LOG].copy[copy], POISON_LOG_BYTES,
			 OWNER(OWNER_POISON_LOG), high);
		nfix_own(fix, tx, super->areas[AREA_FIXED].copy[copy],
			 super->areas[AREA_FIXED].length_bytes, OWNER(OWNER_FIXED), high);
		nfix_own(fix, tx, fix->first[copy], 1u << NFIX_CHUNK_SHIFT, OWNER(OWNER_CHUNK),
			 (uint64_t)copy * CHUNK_SLOTS);
	}
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
}

static inline void nfix_layout(struct notifyfix *fix, uint64_t ring_bytes)
{
	struct super *super = &fix->super;
	const uint64_t mib = 1 << 20, k64 = 64 << 10;

	memset(super, 0, sizeof(*super));
	memset(super->meta_uuid, 0x33, sizeof(super->meta_uuid));
	super->size_bytes = NFIX_IMAGE_BYTES;
	super->chunk_shift = NFIX_CHUNK_SHIFT;
	super->copies = 2;
	super->areas[AREA_POISON_LOG] = (struct area){{1 * mib, 3 * mib}, POISON_LOG_BYTES};
	super->areas[AREA_JOURNAL] =
	    (struct area){{4 * mib + k64, 6 * mib + k64}, ring_bytes + 4096};
	super->areas[AREA_FIXED] = (struct area){{8 * mib + k64, 10 * mib + k64}, 2 * k64};
	fix->first[0] = 14 * mib + k64;
	fix->first[1] = 16 * mib + k64;
}

static inline void nfix_create_with_ring(struct notifyfix *fix, uint64_t ring_bytes)
{
	memset(fix, 0, sizeof(*fix));
	image_name(fix->path, sizeof(fix->path), "notify", 0);
	nfix_layout(fix, ring_bytes);
	nfix_open_media(fix);
	ck_assert_int_eq(poison_log_format(fix->media, &fix->super), 0);
	ck_assert_int_eq(journal_format(fix->media, &fix->super, fix->first), 0);
	ck_assert_int_eq(media_sync(fix->media), 0);
	nfix_open_journal(fix);
	nfix_fill_trees(fix);
	alloc_destroy(fix->alloc);
	ck_assert_int_eq(journal_close(fix->journal), 0);
	poison_log_close(fix->log);
	ck_assert_int_eq(media_close(fix->media), 0);
	nfix_mount(fix);
}

static inline void nfix_create(struct notifyfix *fix)
{
	nfix_create_with_ring(fix, 1 << 20);
}

static inline void nfix_destroy(struct notifyfix *fix)
{
	if (fix->notify)
		nfix_unmount(fix);
	image_remove(fix->path);
}

/* --- files that are only records
 * ------------------------------------------------------------------------------------- */

/* Take the blocks (once) and map them into the inode at file_block. */
static inline void nfix_map(struct notifyfix *fix, inum_t ino, uint64_t file_block, blkno_t block,
			    uint64_t count, uint8_t flags, bool take)
{
	const struct rmap_record record = {
	    .start = block, .count = count, .owner = ino, .offset = file_block, .flags = flags};
	struct tx *tx;

	ck_assert_int_eq(tx_begin(fix->journal, TX_RESERVE, &tx), 0);
	if (take)
		ck_assert_int_eq(alloc_take_exact(fix->alloc, tx, block, count), 0);
	ck_assert_int_eq(rmap_insert(&fix->rmap, tx, &record), 0);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
}

static inline void nfix_file(struct notifyfix *fix, inum_t ino, blkno_t block, uint64_t count)
{
	nfix_map(fix, ino, 0, block, count, 0, true);
}

static inline void nfix_share(struct notifyfix *fix, inum_t ino, uint64_t file_block, blkno_t block,
			      uint64_t count)
{
	nfix_map(fix, ino, file_block, block, count, 0, false);
}

static inline void nfix_unmap_free(struct notifyfix *fix, inum_t ino, uint64_t file_block,
				   blkno_t block, uint64_t count)
{
	const struct rmap_record record = {
	    .start = block, .count = count, .owner = ino, .offset = file_block};
	struct tx *tx;

	ck_assert_int_eq(tx_begin(fix->journal, TX_RESERVE, &tx), 0);
	ck_assert_int_eq(rmap_remove(&fix->rmap, tx, &record), 0);
	ck_assert_int_eq(ledger_free_blocks(fix->notify, tx, block, count), 0);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
}

/* --- asking --- */

static inline void nfix_report(struct notifyfix *fix, devoff_t offset, uint64_t length)
{
	ck_assert_int_eq(notify_report(fix->notify, offset, length, FAILURE_CONTROL), 0);
}

static inline void nfix_settle(struct notifyfix *fix)
{
	ck_assert_int_eq(notify_wait(fix->notify, 20000), 0);
}

static inline uint64_t nfix_root(struct notifyfix *fix, enum root_counter counter)
{
	uint64_t value;

	journal_read_begin(fix->journal);
	value = root_get(fix->journal, counter);
	journal_read_end(fix->journal);
	return value;
}

static inline bool nfix_is_known(struct notifyfix *fix, devoff_t offset, uint64_t length)
{
	devoff_t bad;
	uint64_t bad_length;

	return media_bad_find(fix->media, offset, length, &bad, &bad_length);
}

/* The next event of this type; those in between are dropped. NULL: none. */
static inline struct event *nfix_event(struct notifyfix *fix, enum event_type type)
{
	struct event *event;

	while ((event = event_take(fix->subscriber)) && event->type != type)
		event_free(event);
	return event;
}

struct nfix_counts {
	unsigned media, file, repaired, lost, uninjected, shutdown, other;
};

static inline struct nfix_counts nfix_count_events(struct notifyfix *fix)
{
	struct nfix_counts counts = {0};
	struct event *event;

	while ((event = event_take(fix->subscriber))) {
		switch (event->type) {
		case EVENT_MEDIA_FAILURE:
			counts.media++;
			break;
		case EVENT_FILE_DAMAGED:
			counts.file++;
			break;
		case EVENT_METADATA_REPAIRED:
			counts.repaired++;
			break;
		case EVENT_METADATA_LOST:
			counts.lost++;
			break;
		case EVENT_UNINJECTED:
			counts.uninjected++;
			break;
		case EVENT_SHUTDOWN:
			counts.shutdown++;
			break;
		default:
			counts.other++;
			break;
		}
		event_free(event);
	}
	return counts;
}

struct nfix_records {
	struct badblock_record records[4096];
	size_t count;
	uint64_t bytes;
};

static inline int nfix_visit_record(void *arg, const struct badblock_record *record)
{
	struct nfix_records *all = arg;

	expect(all->count < ARRAY_SIZE(all->records));
	all->records[all->count++] = *record;
	all->bytes += record->length_bytes;
	return 0;
}

static inline void nfix_badblocks(struct notifyfix *fix, struct nfix_records *out)
{
	out->count = 0;
	out->bytes = 0;
	ck_assert_int_eq(ledger_walk_badblocks(fix->notify, nfix_visit_record, out), 0);
}

static inline int nfix_visit_lost(void *arg, const struct lost_record *record)
{
	*(uint64_t *)arg += record->length_bytes;
	return 0;
}

static inline uint64_t nfix_lost_bytes(struct notifyfix *fix)
{
	uint64_t bytes = 0;

	ck_assert_int_eq(ledger_walk_lost(fix->notify, nfix_visit_lost, &bytes), 0);
	return bytes;
}

struct nfix_owned {
	uint64_t blocks;
	uint64_t owner;
};

static inline int nfix_visit_owned(void *arg, const struct rmap_record *record)
{
	struct nfix_owned *owned = arg;

	if (record->owner == owned->owner)
		owned->blocks += record->count;
	return 0;
}

/* Blocks of the range that this owner has. */
static inline uint64_t nfix_owned(struct notifyfix *fix, uint64_t owner, blkno_t start,
				  uint64_t count)
{
	struct nfix_owned owned = {.owner = owner};

	journal_read_begin(fix->journal);
	ck_assert_int_eq(rmap_query(&fix->rmap, start, count, nfix_visit_owned, &owned), 0);
	journal_read_end(fix->journal);
	return owned.blocks;
}

static inline int nfix_visit_free(void *arg, blkno_t start, uint64_t count)
{
	(void)start;
	*(uint64_t *)arg += count;
	return 0;
}

static inline uint64_t nfix_free(struct notifyfix *fix, blkno_t start, uint64_t count)
{
	uint64_t blocks = 0;

	journal_read_begin(fix->journal);
	ck_assert_int_eq(alloc_walk(fix->alloc, start, count, nfix_visit_free, &blocks), 0);
	journal_read_end(fix->journal);
	return blocks;
}

/* The counters of the root block are what the trees add up to. */
static inline void nfix_check_counters(struct notifyfix *fix)
{
	static struct nfix_records all;
	const uint64_t blocks = NFIX_IMAGE_BYTES >> BLOCK_SHIFT;

	nfix_badblocks(fix, &all);
	ck_assert_uint_eq(nfix_root(fix, ROOT_BADBLOCK_BYTES), all.bytes);
	ck_assert_uint_eq(nfix_root(fix, ROOT_LOST_BYTES), nfix_lost_bytes(fix));
	ck_assert_uint_eq(nfix_root(fix, ROOT_QUARANTINED_BLOCKS),
			  nfix_owned(fix, OWNER(OWNER_QUARANTINE), 0, blocks));
	ck_assert_uint_eq(nfix_root(fix, ROOT_FREE_BLOCKS), nfix_free(fix, 0, blocks));
}

static inline devoff_t nfix_block(uint64_t index)
{
	return (NFIX_DATA_BLOCK + index) << BLOCK_SHIFT;
}

#endif
