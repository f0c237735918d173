#include "fs/inode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/background.h"
#include "fs/intent.h"
#include "fs/orphan.h"
#include "fs/table.h"
#include "journal/root.h"
#include "media/claim.h"
#include "util/log.h"

/* --- what is bad before anything is read ------------------------------------------------------------------------------------ */

struct mount_known {
	pthread_mutex_t lock;
	struct iset ranges;	/* tag: enum failure_source */
	struct poison_log *log; /* once it is open */
	uint64_t count_consumed; /* under the lock */
	bool said_unknown;
};

/*
 * What recovery could not write home must be known to the next mount before the journal's tail moves: the copy is behind from then on. A log
 * that cannot take it is no reason to give up: the pipeline hears of it all the same.
 */
static void mount_log_fault(struct mount_known *known, const struct media_fault *fault)
{
	devoff_t start = round_down_u64(fault->offset, SECTOR_BYTES);
	struct poison_entry entry = {
		.offset = start,
		.length_bytes = round_up_u64(fault->offset + fault->length, SECTOR_BYTES) - start,
		.time_ns = time_now_ns(),
		.state = fault->kind == MEDIA_FAULT_SUSPECT ? BADBLOCK_SUSPECT : BADBLOCK_BAD,
		.source = FAILURE_SIGBUS,
	};

	if (fault->kind != MEDIA_FAULT_POISON && fault->kind != MEDIA_FAULT_SUSPECT)
		return;
	if (known->log && !poison_log_is_appending())
		poison_log_append(known->log, &entry);
}

/*
 * Faults met before the failure pipeline exists, and what sources knew already: reported to it as soon as it does, so that they are
 * in the ledger, have owners and events.
 */
static void mount_fault(void *arg, const struct media_fault *fault)
{
	struct mount_known *known = arg;

	if (fault->kind == MEDIA_FAULT_HOST_FULL)
		return;
	pthread_mutex_lock(&known->lock);
	known->count_consumed += fault->kind == MEDIA_FAULT_POISON;
	iset_add(&known->ranges, fault->offset, fault->offset + fault->length, FAILURE_SIGBUS);
	pthread_mutex_unlock(&known->lock);
	mount_log_fault(known, fault);
}

static int mount_know(struct fs *fs, struct mount_known *known, devoff_t offset, uint64_t length, unsigned source)
{
	int error = iset_add(&known->ranges, offset, offset + length, source);

	return error ? error : media_bad_add(fs->media, offset, length);
}

static int mount_know_listed(struct fs *fs, struct mount_known *known)
{
	struct source_list list;
	int error = source_badblocks(fs->media, &list);

	if (error)
		return error;
	for (size_t i = 0; i < list.count && !error; i++)
		error = mount_know(fs, known, list.blocks[i].offset, list.blocks[i].length, FAILURE_KERNEL);
	if (list.state == SOURCE_UNKNOWN && !known->said_unknown && !fs->options.tools)
		log_warning("%s: badblocks: unknown: %s", media_path(fs->media), list.why.text);
	known->said_unknown = list.state == SOURCE_UNKNOWN;
	source_list_fini(&list);
	return error;
}

/* Latent ranges stay unknown until somebody touches them. */
static int mount_know_emulated(struct fs *fs, struct mount_known *known, bool add)
{
	struct media_poison *list = NULL;
	size_t count = 0;
	int error = media_poison_list(fs->media, &list, &count);

	for (size_t i = 0; i < count && !error; i++) {
		if (list[i].latent)
			continue;
		if (add) {
			error = mount_know(fs, known, list[i].offset, list[i].length, FAILURE_INJECTED);
			continue;
		}
		iset_remove(&known->ranges, list[i].offset, list[i].offset + list[i].length);
		error = media_bad_remove(fs->media, list[i].offset, list[i].length);
	}
	free(list);
	return error;
}

/*
 * IMAGE.poison is tied to a uuid that is not known before the superblock was read, and the superblock may not be read before what is
 * bad is known: take the file as it is first, and drop it again when it turns out to be another filesystem's.
 */
static int mount_settle_poison(struct fs *fs, struct mount_known *known, struct why *why)
{
	int error = mount_know_emulated(fs, known, false);

	if (!error)
		error = media_poison_load(fs->media, fs->super.uuid, why);
	if (!error)
		error = mount_know_emulated(fs, known, true);
	return error ? error : mount_know_listed(fs, known);
}

/* --- steps of mount, in order ------------------------------------------------------------------------------------------------ */

/* What is bad, before anything is read. */
static int mount_know_first(struct fs *fs, struct mount_known *known, struct why *why)
{
	int error;

	media_set_fault_handler(fs->media, mount_fault, known);
	error = mount_know_listed(fs, known);
	if (!error)
		error = media_poison_load(fs->media, NULL, why);
	if (!error)
		error = mount_know_emulated(fs, known, true);
	return error;
}

static int mount_read_super(struct fs *fs, struct mount_known *known, struct why *why)
{
	uint64_t size = media_size(fs->media);
	int error = fs_read_super(fs->media, &fs->super, why);

	if (!error)
		error = fs_check_place(fs->media, &fs->super, why);
	if (error)
		return error;
	error = format_super_check_features(&fs->super, why);
	if (error < 0)
		return error;
	if (error > 0) {
		log_warning("%s: mounted read-only: %s", media_path(fs->media), why->text);
		fs->options.readonly = true;
	}
	if (fs->super.version < FORMAT_VERSION_TWICE_TOLD && !fs->options.repair && !fs->options.readonly) {
		log_warning("%s: mounted read-only: format version %u; fsck.mendfs -y makes it version %u",
			    media_path(fs->media), fs->super.version, FORMAT_VERSION);
		fs->options.readonly = true;
	}
	if (size < fs->super.size_bytes)
		return why_set(why, -EINVAL,
			       "%s: has %llu bytes, its filesystem needs %llu: restore the full image or device",
			       media_path(fs->media), (unsigned long long)size,
			       (unsigned long long)fs->super.size_bytes);
	return mount_settle_poison(fs, known, why);
}

static int mount_open_journal(struct fs *fs, struct mount_known *known, struct why *why)
{
	struct journal_options options = {.readonly = fs->options.readonly, .cache_bytes = fs->options.cache_bytes};
	const struct journal_recovery *recovery;
	int error = poison_log_open(fs->media, &fs->super, &fs->poison_log);

	if (error)
		return why_set(why, error, "%s: the poison log cannot be read: %s", media_path(fs->media),
			       strerror(-error));
	known->log = fs->poison_log;
	error = journal_open(fs->media, &fs->super, &options, why, &fs->journal);
	if (error)
		return error;
	recovery = journal_recovery(fs->journal);
	if (recovery->records)
		log_info("%s: recovered %llu transactions from the journal", media_path(fs->media),
			 (unsigned long long)recovery->records);
	if (recovery->hole)
		log_error("%s: the journal has a hole: mounted read-only; run fsck.mendfs", media_path(fs->media));
	return 0;
}

static void mount_init_trees(struct fs *fs)
{
	btree_init(&fs->inodes, fs->journal, &inodes_ops);
	btree_init(&fs->dirents, fs->journal, &dirents_ops);
	btree_init(&fs->parents, fs->journal, &parents_ops);
	btree_init(&fs->extents, fs->journal, &extents_ops);
	btree_init(&fs->xattrs, fs->journal, &xattrs_ops);
	btree_init(&fs->damaged, fs->journal, &damaged_ops);
	btree_init(&fs->orphans, fs->journal, &orphans_ops);
	btree_init(&fs->intents, fs->journal, &intents_ops);
	rmap_init(&fs->rmap, fs->journal);
}

static int mount_start_notify(struct fs *fs, struct mount_known *known)
{
	struct notify_known *list = calloc(known->ranges.count + 1, sizeof(*list));
	struct notify_setup setup = {
		.journal = fs->journal,
		.rmap = &fs->rmap,
		.alloc = fs->alloc,
		.log = fs->poison_log,
		.events = fs->events,
		.ops = &fs_holder_ops,
		.holder = fs,
		.known = list,
		.count_known = known->ranges.count,
		.count_consumed = known->count_consumed,
		.starts_late = fs->options.tools,
		.passive = fs->options.repair,
	};
	int error = list ? 0 : -ENOMEM;

	for (size_t i = 0; i < known->ranges.count && !error; i++) {
		const struct iset_range *range = &known->ranges.ranges[i];

		list[i] = (struct notify_known){range->start, range->end - range->start, range->tag};
	}
	if (!error)
		error = notify_create(&setup, &fs->notify);
	free(list);
	return error;
}

static int mount_build(struct fs *fs, struct mount_known *known, struct why *why)
{
	int error = alloc_create(fs->journal, &fs->alloc);

	if (!error)
		error = inode_table_create(&fs->table);
	if (!error)
		error = event_bus_create(&fs->events);
	if (!error) {
		mount_init_trees(fs);
		error = mount_start_notify(fs, known);
	}
	if (error)
		why_set(why, error, "%s: %s", media_path(fs->media), strerror(-error));
	return error;
}

/* Both copies of some metadata block were lost by an earlier mount: what is intact is served, nothing is changed. */
static void mount_heed_flags(struct fs *fs)
{
	uint64_t flags;

	journal_read_begin(fs->journal);
	flags = root_get(fs->journal, ROOT_FLAGS);
	journal_read_end(fs->journal);
	if (!(flags & ROOT_FLAG_METADATA_LOST))
		return;
	log_error("%s: metadata was lost: mounted read-only; run fsck.mendfs", media_path(fs->media));
	pthread_mutex_lock(&fs->state_lock);
	fs->metadata_lost = true;
	fs->shutdown_reason = "metadata_lost";
	pthread_mutex_unlock(&fs->state_lock);
	journal_shutdown(fs->journal);
}

/*
 * Each such shutdown may have lost what had been acknowledged (the energy that should have flushed it was not there), and nothing on the medium
 * shows it but checksums of metadata: whoever keeps the machine must hear of it, once.
 */
static int mount_compare_shutdowns(struct fs *fs, struct tx *tx)
{
	const char *path = media_path(fs->media);
	uint64_t before = root_get(fs->journal, ROOT_UNSAFE_SHUTDOWNS), now;

	if (media_unsafe_shutdowns(fs->media, &now) || now == UINT64_MAX || before == now + 1)
		return 0;
	if (before)
		log_warning("%s: unsafe shutdowns of its DIMMs: %llu at the last mount, %llu now; what was written last may be lost: check it with "
			    "mendctl check, and the DIMMs with ndctl list -DH",
			    path, (unsigned long long)(before - 1), (unsigned long long)now);
	return root_set(tx, ROOT_UNSAFE_SHUTDOWNS, now + 1);
}

static int mount_count(struct fs *fs)
{
	struct tx *tx;
	int error = tx_begin(fs->journal, TX_RESERVE, &tx);

	if (error)
		return error;
	error = root_add(tx, ROOT_MOUNTS, 1);
	if (!error)
		error = mount_compare_shutdowns(fs, tx);
	return tx_end(tx, error, NULL);
}

static void mount_watch(struct fs *fs)
{
	int error = notify_watch(fs->notify);

	if (error)
		log_warning("%s: failures of memory that nobody touches are not heard of: %s", media_path(fs->media), strerror(-error));
}

static int mount_start(struct fs *fs, struct why *why)
{
	int error;

	if (fs->options.repair)
		return 0;
	mount_heed_flags(fs);
	if (!fs->options.tools)
		mount_watch(fs);
	if (fs_is_readonly(fs))
		return 0;
	error = mount_count(fs);
	if (!error)
		error = super_complete(fs);
	if (!error)
		error = resize_complete(fs);
	if (error == -EUCLEAN) { /* what is intact is served */
		fs_shutdown(fs, "damaged");
		return 0;
	}
	if (error && error != -EROFS)
		return why_set(why, error, "%s: cannot write to its journal: %s", media_path(fs->media),
			       strerror(-error));
	intent_finish_all(fs);
	if (fs->options.tools)
		return 0;
	error = background_start(fs);
	return error ? why_set(why, error, "cannot start a thread: %s", strerror(-error)) : 0;
}

/* Whatever exists of it, in reverse order. The first error. */
static int mount_teardown(struct fs *fs)
{
	int error = 0, closed;

	if (fs->notify)
		notify_destroy(fs->notify);
	background_destroy(fs);
	if (fs->alloc)
		alloc_destroy(fs->alloc);
	if (fs->journal)
		error = journal_close(fs->journal);
	if (fs->poison_log)
		poison_log_close(fs->poison_log);
	inode_table_destroy(fs->table);
	if (fs->media) {
		media_set_fault_handler(fs->media, NULL, NULL);
		closed = fs->borrows_media ? 0 : media_close(fs->media);
		error = error ? error : closed;
	}
	if (fs->events)
		event_bus_destroy(fs->events);
	super_forget(fs);
	pthread_mutex_destroy(&fs->super_lock);
	pthread_mutex_destroy(&fs->stop_lock);
	pthread_mutex_destroy(&fs->trim_lock);
	pthread_mutex_destroy(&fs->lost.lock);
	pthread_mutex_destroy(&fs->state_lock);
	free(fs);
	return error;
}

static int mount_run(struct fs *fs, struct why *why)
{
	struct mount_known known = {0};
	int error;

	pthread_mutex_init(&known.lock, NULL);
	iset_init(&known.ranges);
	error = mount_know_first(fs, &known, why);
	if (!error)
		error = mount_read_super(fs, &known, why);
	if (!error)
		error = mount_open_journal(fs, &known, why);
	if (!error)
		error = mount_build(fs, &known, why);
	if (!error)
		error = mount_start(fs, why);
	if (error && !why->text[0])
		why_set(why, error, "%s: %s", media_path(fs->media), strerror(-error));
	if (error)
		mount_teardown(fs);
	iset_fini(&known.ranges);
	pthread_mutex_destroy(&known.lock);
	return error;
}

static struct fs *mount_alloc(const struct fs_options *options)
{
	struct fs *fs = calloc(1, sizeof(*fs));

	if (!fs)
		return NULL;
	fs->options = *options;
	pthread_mutex_init(&fs->state_lock, NULL);
	pthread_mutex_init(&fs->lost.lock, NULL);
	pthread_mutex_init(&fs->super_lock, NULL);
	pthread_mutex_init(&fs->stop_lock, NULL);
	pthread_mutex_init(&fs->trim_lock, NULL);
	return fs;
}

int fs_mount_media(struct media *media, const struct fs_options *options, struct why *why, struct fs **out)
{
	struct fs *fs = mount_alloc(options);
	int error;

	if (!fs)
		return why_set(why, -ENOMEM, "out of memory");
	fs->media = media;
	fs->borrows_media = true;
	why->text[0] = 0;
	error = mount_run(fs, why);
	if (!error)
		*out = fs;
	return error;
}

int fs_mount(const char *path, const struct fs_options *options, struct why *why, struct fs **out)
{
	struct media_options media_options = {.readonly = options->readonly, .claim = options->claim};
	struct media *media;
	struct fs *fs;
	int error = media_open(path, &media_options, why, &media);

	if (error)
		return error;
	fs = mount_alloc(options);
	if (!fs) {
		media_close(media);
		return why_set(why, -ENOMEM, "out of memory");
	}
	fs->media = media;
	error = mount_run(fs, why);
	if (!error)
		*out = fs;
	return error;
}

int fs_unmount(struct fs *fs)
{
	struct claim *claim = media_claim(fs->media);
	int error = 0, closed;

	if (claim)
		claim_set_finishing(claim);
	background_stop(fs);
	if (!fs_is_readonly(fs)) {
		inode_forget_all(fs);
		if (!fs->options.repair) {
			orphan_reclaim_queued(fs);
			orphan_reclaim_left(fs, NULL);
		}
		inode_flush_all(fs);
		error = journal_sync(fs->journal);
		/* While there is a ledger to hear what poison it clears; an error is met again by the close. */
		journal_checkpoint(fs->journal);
	}
	closed = mount_teardown(fs);
	return error ? error : closed;
}

void fs_abandon(struct fs *fs)
{
	pthread_mutex_lock(&fs->state_lock);
	fs->shutdown = true;
	pthread_mutex_unlock(&fs->state_lock);
	journal_shutdown(fs->journal);
	background_stop(fs);
	mount_teardown(fs);
}

/* --- accessors --------------------------------------------------------------------------------------------------------------- */

struct media *fs_media(struct fs *fs)
{
	return fs->media;
}

struct event_bus *fs_events(struct fs *fs)
{
	return fs->events;
}

bool fs_is_readonly(struct fs *fs)
{
	bool lost;

	pthread_mutex_lock(&fs->state_lock);
	lost = fs->metadata_lost || fs->shutdown;
	pthread_mutex_unlock(&fs->state_lock);
	return fs->options.readonly || lost || journal_is_readonly(fs->journal);
}

void fs_statfs(struct fs *fs, struct fs_statfs *out)
{
	uint64_t free_blocks, reserve; /* what requests for data will not get */

	journal_read_begin(fs->journal);
	free_blocks = alloc_free_blocks(fs->alloc);
	reserve = alloc_reserve_blocks(fs->alloc);
	out->inodes = root_get(fs->journal, ROOT_INODES);
	journal_read_end(fs->journal);
	out->total_blocks = fs_super(fs)->size_bytes / BLOCK_BYTES;
	out->free_blocks = free_blocks;
	out->available_blocks = free_blocks - min_u64(free_blocks, reserve);
	/* Inodes are made as they are needed, several to a metadata block. */
	out->free_inodes = out->available_blocks * 4;
}
