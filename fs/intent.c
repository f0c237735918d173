#include "fs/intent.h"

#include <errno.h>
#include <string.h>

#include "journal/root.h"
#include "util/log.h"

static int intent_put(struct fs *fs, struct tx *tx, uint64_t id, const struct intent_record *intent, bool is_new)
{
	struct btree_key key = {{id}};
	struct format_intent packed;

	format_intent_pack(&packed, intent);
	if (is_new)
		return btree_insert(&fs->intents, tx, &key, &packed, sizeof(packed));
	return btree_update(&fs->intents, tx, &key, &packed, sizeof(packed));
}

int intent_begin(struct fs *fs, struct tx *tx, const struct intent_record *intent, uint64_t *id)
{
	uint64_t next = root_get(fs->journal, ROOT_NEXT_INTENT);
	int error = root_add(tx, ROOT_NEXT_INTENT, 1);

	if (!error)
		error = root_add(tx, ROOT_INTENTS, 1);
	if (!error)
		error = intent_put(fs, tx, next, intent, true);
	if (!error)
		*id = next;
	return error;
}

int intent_advance(struct fs *fs, struct tx *tx, uint64_t id, const struct intent_record *intent)
{
	return intent_put(fs, tx, id, intent, false);
}

int intent_end(struct fs *fs, struct tx *tx, uint64_t id)
{
	struct btree_key key = {{id}};
	int error = btree_remove(&fs->intents, tx, &key);

	return error ? error : root_add(tx, ROOT_INTENTS, -1);
}

static int intent_next(struct fs *fs, uint64_t from, uint64_t *id, struct intent_record *intent)
{
	struct btree_key key = {{from}};
	struct btree_record found;
	int error;

	journal_read_begin(fs->journal);
	error = btree_lookup_ge(&fs->intents, &key, &found);
	journal_read_end(fs->journal);
	if (!error)
		error = format_intent_unpack(intent, found.value, found.length);
	if (!error)
		*id = found.key.word[0];
	return error;
}

void intent_finish_all(struct fs *fs)
{
	struct intent_record intent;
	uint64_t id, from = 0;
	int error;

	while (!(error = intent_next(fs, from, &id, &intent))) {
		int finished = intent_finish(fs, id, &intent);

		if (finished)
			log_error("an operation on inode %llu that a crash cut short cannot be finished: %s",
				  (unsigned long long)intent.args[0], strerror(-finished));
		if (id == UINT64_MAX)
			return;
		from = id + 1;
	}
	if (error != -ENOENT)
		log_error("the list of unfinished operations cannot be read: %s", strerror(-error));
}
