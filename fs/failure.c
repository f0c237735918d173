/* What the filesystem does when memory under it fails: the ops that notify/ calls on its thread, no
 * lock held. */
#include <errno.h>
#include <string.h>

#include "fs/inode.h"
#include "journal/chunk.h"
#include "journal/root.h"
#include "util/log.h"

#define INVALIDATE_WAIT_MS 2000u

static void failure_shutdown(void *holder, const char *reason);

void fs_set_invalidate(struct fs *fs, fs_invalidate_fn *fn, void *arg)
{
	pthread_mutex_lock(&fs->state_lock);
	fs->invalidate = fn;
	fs->invalidate_arg = arg;
	pthread_mutex_unlock(&fs->state_lock);
	/* A call under way uses the old one. */
	if (!fn && fs->notify)
		notify_wait(fs->notify, INVALIDATE_WAIT_MS);
}

static void failure_invalidate(struct fs *fs, inum_t ino, uint64_t pos, uint64_t length)
{
	fs_invalidate_fn *fn;
	void *arg;

	pthread_mutex_lock(&fs->state_lock);
	fn = fs->invalidate;
	arg = fs->invalidate_arg;
	pthread_mutex_unlock(&fs->state_lock);
	if (fn)
		fn(arg, ino, pos, length);
}

/* Blocks past the end of file hold nothing that anybody could read. false: all of it is there. */
static bool failure_clip(uint64_t size_bytes, struct event *event)
{
	if (event->pos >= size_bytes)
		return false;
	event->len = min_u64(event->len, size_bytes - event->pos);
	event->bytes_lost = min_u64(event->bytes_lost, event->len);
	return true;
}

/* A cold inode is read for it; one that cannot be read is told of all the same. */
static int failure_file(void *holder, const struct notify_file_failure *failure,
			struct event *event)
{
	struct fs *fs = holder;
	struct fs_attr attr;
	struct inode *inode;
	int error;

	failure_invalidate(fs, failure->ino, failure->pos, failure->length_bytes);
	error = inode_get(fs, failure->ino, &inode);
	if (error == -ENOENT)
		return 1;
	if (error) {
		fs_names(fs, failure->ino, SIZE_MAX, &event->paths, &event->count_paths);
		return 0;
	}
	inode_attr(inode, &attr);
	inode_put(inode);
	if (!failure_clip(attr.record.size_bytes, event))
		return 1;
	event->generation = attr.record.generation;
	error = fs_paths(fs, failure->ino, NULL, &event->paths, &event->count_paths);
	if (error)
		log_warning("inode %llu: its paths cannot be found: %s",
			    (unsigned long long)failure->ino, strerror(-error));
	return 0;
}

/* --- metadata --- */

/* Can it be had, from either copy or the cache, and what is it? */
static bool failure_name_block(struct fs *fs, maddr_t address, const char **name)
{
	const struct format_block_header *header;
	struct buf *buf;
	int error;

	journal_read_begin(fs->journal);
	error = buf_get_any(fs->journal, address, &buf);
	if (!error) {
		header = (const struct format_block_header *)buf->data;
		*name = format_block_name(header->role, header->tree);
		buf_put(buf);
	}
	journal_read_end(fs->journal);
	return !error;
}

static bool failure_is_live(struct fs *fs, maddr_t address)
{
	bool is_live;

	journal_read_begin(fs->journal);
	is_live = chunk_block_is_live(fs->journal, address);
	journal_read_end(fs->journal);
	return is_live;
}

static int failure_rewrite(struct fs *fs, devoff_t offset, const void *block)
{
	int error = media_clear(fs->media, offset, BLOCK_BYTES);

	if (!error)
		error = media_write(fs->media, offset, block, BLOCK_BYTES, NULL);
	/* Durable before the ledger calls it good. */
	media_drain(fs->media);
	return error;
}

/*
 * A block that holds nothing: made usable again. Within a transaction, which changes nothing, so
 * that nobody allocates it and writes it home meanwhile. -EAGAIN: it is in use by now.
 */
static int failure_clear_unused(struct fs *fs, maddr_t address, devoff_t offset)
{
	static const uint8_t zeros[BLOCK_BYTES];
	struct tx *tx;
	int error = tx_begin(fs->journal, TX_RESERVE, &tx);

	if (error)
		return error;
	error = chunk_block_is_live(fs->journal, address) ? -EAGAIN
							  : failure_rewrite(fs, offset, zeros);
	tx_abort(tx);
	return error;
}

static int failure_unused(struct fs *fs, maddr_t address, devoff_t offset, struct event *event)
{
	int error = failure_clear_unused(fs, address, offset);

	event->action = error ? "replica" : "cleared";
	return error == -EAGAIN ? error : 0;
}

/* Why the copy could not be rewritten decides: the medium cannot clear, or we may not write: the
 * other copy serves. Nothing to serve: lost. */
static void failure_judge(struct fs *fs, maddr_t address, int error, struct event *event)
{
	const char *name = "unknown";

	if (failure_name_block(fs, address, &name)) {
		event->action = error ? "replica" : "rewritten";
	} else if (error) {
		event->type = EVENT_METADATA_LOST;
		event->action = "none";
		event->error = EIO;
		failure_shutdown(fs, "metadata_lost"); /* first: loss_tell() reads trees that nobody changes */
		loss_tell(fs, address, event);
		return;
	}
	event->tree = name;
}

static int failure_metadata(void *holder, maddr_t address, unsigned copy, devoff_t offset,
			    struct event *event)
{
	struct fs *fs = holder;
	unsigned repaired;
	int error;

	(void)copy;
	if (!failure_is_live(fs, address)) {
		error = failure_unused(fs, address, offset, event);
		if (error != -EAGAIN)
			return error;
	}
	error = journal_repair(fs->journal, address, &repaired);
	if (error && error != -EIO && error != -EROFS && error != -ENOTSUP)
		log_error("metadata block %llu: %s", (unsigned long long)address, strerror(-error));
	failure_judge(fs, address, error, event);
	return 0;
}

static int failure_super(void *holder, unsigned slot, struct event *event)
{
	struct fs *fs = holder;
	struct format_super raw;
	int error = -EROFS;

	/* Not in the middle of a change, whose bytes ours would get between. */
	pthread_mutex_lock(&fs->super_lock);
	format_super_pack(&raw, fs_super(fs));
	if (!media_is_readonly(fs->media) && !fs->options.readonly)
		error = failure_rewrite(fs, super_slot_offset(slot), &raw);
	pthread_mutex_unlock(&fs->super_lock);
	if (error)
		event->action = "replica";
	return 0;
}

/* --- the end --- */

static void failure_store_flag(struct fs *fs, uint64_t flag)
{
	struct tx *tx;

	if (tx_begin(fs->journal, TX_RESERVE, &tx))
		return;
	if (tx_end(tx, root_set(tx, ROOT_FLAGS, root_get(fs->journal, ROOT_FLAGS) | flag), NULL) == 0)
		journal_sync(fs->journal);
}

static void failure_shutdown(void *holder, const char *reason)
{
	const bool is_lost = strcmp(reason, "metadata_lost") == 0;
	struct fs *fs = holder;
	bool is_first;

	if (fs_is_stopped(fs)) /* whatever fails now fails because of that */
		return;
	pthread_mutex_lock(&fs->state_lock);
	is_first = !fs->shutdown && !fs->metadata_lost;
	if (is_lost)
		fs->metadata_lost = true;
	else
		fs->shutdown = true;
	if (is_first)
		fs->shutdown_reason = reason;
	pthread_mutex_unlock(&fs->state_lock);
	if (is_first)
		log_error("%s: %s: nothing is changed any more, what is intact can be read",
			  media_path(fs->media), reason);
	if (is_lost && is_first)
		failure_store_flag(fs, ROOT_FLAG_METADATA_LOST);
	journal_shutdown(fs->journal);
}

void fs_shutdown(struct fs *fs, const char *reason)
{
	failure_shutdown(fs, reason);
}

static void failure_done(void *holder, uint64_t cause_id)
{
	const struct fs *fs = holder;

	log_debug("%s: every owner of cause %llu has been told", media_path(fs->media),
		  (unsigned long long)cause_id);
}

static int failure_tx_begin(void *holder, struct tx **tx)
{
	int error = fs_tx_begin(holder, TX_RESERVE, tx);

	return error && fs_is_stopped(holder) ? -EROFS : error;
}

const struct notify_holder_ops fs_holder_ops = {
    .file_failure = failure_file,
    .metadata_failure = failure_metadata,
    .super_failure = failure_super,
    .failure_done = failure_done,
    .shutdown = failure_shutdown,
    .tx_begin = failure_tx_begin,
};
