/* Telling the owners of a failed range. No lock is held here while an op of the holder or the event
 * bus is called. */
#include <errno.h>
#include <stdlib.h>

#include "notify/internal.h"
#include "notify/owners.h"
#include "util/log.h"

static void tell_media(struct notify *notify, const struct cause *cause)
{
	const struct event event = {
	    .type = EVENT_MEDIA_FAILURE,
	    .cause_id = cause->id,
	    .device_offset = cause->start,
	    .len = cause->end - cause->start,
	    .source = cause->source,
	};

	event_publish(notify->setup.events, &event);
}

static void tell_file(struct notify *notify, const struct cause *cause,
		      const struct owner_file *file, uint64_t sharers)
{
	const struct notify_setup *setup = &notify->setup;
	const struct notify_file_failure failure = {
	    .cause_id = cause->id,
	    .device_offset = file->device_offset,
	    .ino = file->ino,
	    .pos = file->pos,
	    .length_bytes = file->length_bytes,
	    .sharers = sharers,
	};
	struct event event = {
	    .type = EVENT_FILE_DAMAGED,
	    .cause_id = cause->id,
	    .device_offset = file->device_offset,
	    .source = cause->source,
	    .inumber = file->ino,
	    .pos = file->pos,
	    .len = file->length_bytes,
	    .sharers = sharers,
	    .action = "eio",
	    .bytes_lost = file->lost_bytes,
	    .error = EIO,
	};
	int rc = setup->ops->file_failure(setup->holder, &failure, &event);

	if (rc == 0)
		event_publish(setup->events, &event);
	if (rc < 0)
		log_error("inode %llu: cannot tell of its damage at %llu+%llu: error %d",
			  (unsigned long long)file->ino, (unsigned long long)file->pos,
			  (unsigned long long)file->length_bytes, -rc);
	event_fini(&event);
}

static const char *copy_name(unsigned copy)
{
	return copy ? "replica" : "primary";
}

/* media_clear() took it out of the known set: the ledger follows, with the log's word first. */
static void tell_block_is_good(struct notify *notify, devoff_t offset, uint8_t source)
{
	devoff_t bad;
	uint64_t length;

	if (media_bad_find(notify->media, offset, BLOCK_BYTES, &bad, &length))
		return;
	pthread_mutex_lock(&notify->lock);
	notify_log(notify, offset, offset + BLOCK_BYTES, BADBLOCK_CLEARED, source);
	pthread_mutex_unlock(&notify->lock);
	if (notify_clear_range(notify, offset, offset + BLOCK_BYTES))
		notify->tail_is_held = true;
}

static bool action_is_none(const struct event *event)
{
	return event->type == EVENT_METADATA_REPAIRED && event->action && event->action[0] == 'r' &&
	       event->action[2] == 'p';
}

static void tell_metadata_block(struct notify *notify, const struct cause *cause, maddr_t address,
				unsigned copy, devoff_t offset, bool again)
{
	const struct notify_setup *setup = &notify->setup;
	struct event event = {
	    .type = EVENT_METADATA_REPAIRED,
	    .cause_id = cause->id,
	    .device_offset = offset,
	    .len = BLOCK_BYTES,
	    .source = cause->source,
	    .copy = copy_name(copy),
	    .action = "rewritten",
	};
	int rc = setup->ops->metadata_failure(setup->holder, address, copy, offset, &event);

	if (rc) {
		log_error("metadata block %llu, %s copy: repair failed: error %d",
			  (unsigned long long)address, copy_name(copy), -rc);
		return;
	}
	if (cause->id && event.type == EVENT_METADATA_REPAIRED)
		tell_block_is_good(notify, offset, cause->source);
	if (event.type == EVENT_METADATA_LOST && !cause->id)
		notify_note_lost(notify, address);
	if (event.type == EVENT_METADATA_LOST)
		notify_shutdown(notify, "metadata_lost", &event);
	else if (!again || !action_is_none(&event))
		event_publish(setup->events, &event);
	event_fini(&event);
}

static void tell_super(struct notify *notify, const struct cause *cause,
		       const struct owner_meta *meta, bool again)
{
	const struct notify_setup *setup = &notify->setup;
	struct event event = {
	    .type = EVENT_METADATA_REPAIRED,
	    .cause_id = cause->id,
	    .device_offset = meta->block << BLOCK_SHIFT,
	    .len = BLOCK_BYTES,
	    .source = cause->source,
	    .tree = "superblock",
	    .action = "rewritten",
	};
	int rc = setup->ops->super_failure(setup->holder, (unsigned)meta->offset, &event);

	if (rc) {
		log_error("superblock slot %u: repair failed: error %d", (unsigned)meta->offset,
			  -rc);
		return;
	}
	if (event.type == EVENT_METADATA_REPAIRED)
		tell_block_is_good(notify, event.device_offset, cause->source);
	if (!again || !action_is_none(&event))
		event_publish(setup->events, &event);
}

/* The poison log has every entry in memory. */
static bool log_is_rewritten(struct notify *notify, devoff_t start, devoff_t end, uint8_t source)
{
	int rc;

	pthread_mutex_lock(&notify->lock);
	rc = poison_log_rewrite(notify->setup.log, start, end);
	pthread_mutex_unlock(&notify->lock);
	if (rc)
		return false;
	for (devoff_t at = round_down_u64(start, BLOCK_BYTES); at < end; at += BLOCK_BYTES)
		tell_block_is_good(notify, at, source);
	return true;
}

/* The journal passes over what is known to be bad in its area, and so does the poison log where
 * nothing can be cleared. */
static void tell_area(struct notify *notify, const struct cause *cause,
		      const struct owner_meta *meta, bool again)
{
	const devoff_t start = max_u64(cause->start, meta->block << BLOCK_SHIFT);
	const devoff_t end = min_u64(cause->end, (meta->block + meta->count) << BLOCK_SHIFT);
	const bool is_journal = meta->owner == OWNER(OWNER_JOURNAL);
	const bool is_rewritten =
	    !is_journal && log_is_rewritten(notify, start, end, cause->source);
	const struct event event = {
	    .type = EVENT_METADATA_REPAIRED,
	    .cause_id = cause->id,
	    .device_offset = start,
	    .len = end - start,
	    .source = cause->source,
	    .tree = is_journal ? "journal" : "poison_log",
	    .copy = copy_name((unsigned)(meta->offset >> 32)),
	    .action = is_rewritten ? "rewritten" : "skipped",
	};

	if (!again || is_rewritten)
		event_publish(notify->setup.events, &event);
}

static void tell_meta(struct notify *notify, const struct cause *cause,
		      const struct owner_meta *meta, bool again)
{
	const uint64_t chunk_slots = 2 * CHUNK_SLOTS;

	if (meta->owner == OWNER(OWNER_SUPERBLOCK)) {
		tell_super(notify, cause, meta, again);
		return;
	}
	if (meta->owner == OWNER(OWNER_JOURNAL) || meta->owner == OWNER(OWNER_POISON_LOG)) {
		tell_area(notify, cause, meta, again);
		return;
	}
	for (uint64_t i = 0; i < meta->count; i++) {
		const uint64_t place = meta->offset + i;
		const devoff_t offset = (meta->block + i) << BLOCK_SHIFT;

		if (meta->owner == OWNER(OWNER_FIXED))
			tell_metadata_block(notify, cause, (uint32_t)place, (unsigned)(place >> 32),
					    offset, again);
		else
			tell_metadata_block(
			    notify, cause,
			    maddr_of_chunk(place / chunk_slots, (unsigned)(place % CHUNK_SLOTS)),
			    (unsigned)(place / CHUNK_SLOTS % 2), offset, again);
	}
}

void notify_tell(struct notify *notify, const struct cause *cause)
{
	struct owners owners;

	tell_media(notify, cause);
	if (owners_collect(notify->journal, notify->setup.rmap, cause->start, cause->end, &owners))
		log_error("the owners of %llu+%llu cannot all be found",
			  (unsigned long long)cause->start,
			  (unsigned long long)(cause->end - cause->start));
	/* Metadata first: the files' names may be in it. */
	for (size_t i = 0; i < owners.count_metas; i++)
		tell_meta(notify, cause, &owners.metas[i], false);
	for (size_t i = 0; i < owners.count_files; i++)
		tell_file(notify, cause, &owners.files[i], owners.sharers);
	owners_fini(&owners);
	notify->setup.ops->failure_done(notify->setup.holder, cause->id);
}

static int repair_visit(void *arg, const struct badblock_record *record)
{
	const struct cause cause = {
	    .id = record->cause_id,
	    .start = record->offset,
	    .end = record->offset + record->length_bytes,
	    .source = record->source,
	};
	struct notify *notify = arg;
	struct owners owners;

	owners_collect(notify->journal, notify->setup.rmap, cause.start, cause.end, &owners);
	for (size_t i = 0; i < owners.count_metas; i++)
		tell_meta(notify, &cause, &owners.metas[i], true);
	owners_fini(&owners);
	return 0;
}

void notify_repair_known(struct notify *notify)
{
	if (!journal_is_readonly(notify->journal))
		ledger_walk_badblocks(notify, repair_visit, notify);
}

void notify_repair_copy(struct notify *notify, const struct bad_copy *copy)
{
	const struct cause cause = {.source = FAILURE_CHECKSUM};

	/* It may have been met again while the thread was at it. */
	if (notify_knows_lost(notify, copy->address))
		return;
	tell_metadata_block(notify, &cause, copy->address, copy->copy, copy->offset, false);
}
