/* Operations that were cut short: what makes sense is left for the mount to finish. */
#include "fsck/records.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/data.h"
#include "journal/root.h"

static const char *intent_name(uint64_t op)
{
	return op == INTENT_TRUNCATE ? "truncate" : op == INTENT_PUNCH ? "punch" : "clone";
}

/* A truncate sets the size first: one that would unmap what is below it is not of this state of the file. */
static bool truncate_makes_sense(const struct intent_record *intent, const struct inode_record *inode)
{
	return intent->args[1] >= file_block_up(inode->size_bytes) && intent->args[1] <= FILE_BLOCKS_END;
}

static int intent_makes_sense(struct records *records, const struct intent_record *intent, bool *out)
{
	inum_t target = intent->op == INTENT_CLONE ? intent->args[2] : intent->args[0];
	struct inode_record inode, source;
	int error = records_load_inode(records, target, &inode);

	*out = !error && S_ISREG(inode.mode);
	if (*out && intent->op == INTENT_TRUNCATE)
		*out = truncate_makes_sense(intent, &inode);
	else if (*out && intent->op == INTENT_PUNCH)
		*out = intent->args[1] <= intent->args[2] && intent->args[2] <= FILE_BLOCKS_END;
	else if (*out) {
		error = records_load_inode(records, intent->args[0], &source);
		*out = !error && S_ISREG(source.mode) && target != intent->args[0] && intent->args[1] <= FILE_BLOCKS_END &&
		       intent->args[3] <= FILE_BLOCKS_END && intent->args[4] <= FILE_BLOCKS_END && intent->args[5] <= FS_FILE_MAX;
	}
	return error == -ENOENT ? 0 : error;
}

bool records_has_intent(const struct records *records, inum_t ino)
{
	for (size_t i = 0; i < records->count_intents; i++)
		if (records->intents[i] == ino)
			return true;
	return false;
}

static int intent_keep(struct records *records, const struct intent_record *intent)
{
	inum_t *to = records_grow((void **)&records->intents, &records->count_intents, &records->capacity_intents, sizeof(*to));

	if (!to)
		return -ENOMEM;
	*to = intent->op == INTENT_CLONE ? intent->args[2] : intent->args[0];
	return 0;
}

static int intent_settle(struct records *records, const struct cursor_record *record, bool is_stale)
{
	struct intent_record intent;
	bool makes_sense;
	int error = format_intent_unpack(&intent, record->value, record->length);

	if (!error)
		error = intent_makes_sense(records, &intent, &makes_sense);
	if (error)
		return error;
	if (makes_sense && !is_stale)
		return intent_keep(records, &intent);
	records_tell(records, RECORD_INTENT, "operation %llu: the rest of a %s of inode %llu is not done: it does not fit the file as it is",
		     (unsigned long long)record->key.word[0], intent_name(intent.op), (unsigned long long)intent.args[0]);
	return records_remove(records, &records->fs->intents, &record->key);
}

static int intents_count(struct records *records, uint64_t *count, uint64_t *next)
{
	struct cursor_record record;
	struct cursor cursor;
	int got = cursor_begin(&cursor, records, &records->fs->intents);

	*count = *next = 0;
	if (got)
		return got;
	while ((got = cursor_peek(&cursor, &record)) > 0) {
		++*count;
		*next = record.key.word[0] + 1;
		cursor_advance(&cursor);
	}
	cursor_end(&cursor);
	return got;
}

static int intents_settle_all(struct records *records, bool is_stale)
{
	struct cursor_record record;
	struct cursor cursor;
	int got = cursor_begin(&cursor, records, &records->fs->intents), error = got;

	while (!error && (got = cursor_peek(&cursor, &record)) > 0) {
		error = intent_settle(records, &record, is_stale);
		cursor_advance(&cursor);
	}
	cursor_end(&cursor);
	return error ? error : got;
}

/* More of them than the root block knows are those of an older state: finishing one now would cut what was written since. */
int intents_settle(struct records *records)
{
	uint64_t count, next, stored, stored_next;
	int error = intents_count(records, &count, &next);

	if (error)
		return error;
	records_read_begin(records);
	stored = records->repair->root_was_lost ? count : records->repair->said[ROOT_INTENTS];
	stored_next = root_get(records->fs->journal, ROOT_NEXT_INTENT);
	records_read_end(records);
	for (uint64_t i = count; i < stored; i++)
		records_tell(records, RECORD_INTENT_LOST, "an operation that was cut short is lost: a file may hold more blocks than it needs");
	error = intents_settle_all(records, count > stored);
	if (!error)
		error = records_set_counter(records, ROOT_INTENTS, records->count_intents);
	if (!error && stored_next < next)
		error = records_set_counter(records, ROOT_NEXT_INTENT, next);
	return error;
}
