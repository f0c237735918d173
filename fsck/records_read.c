/* Reading trees for comparison: cursors, and what a leaf is witness of. */
#include "fsck/records.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "btree/path.h"

#define CURSOR_BYTES (128u << 10)

void records_read_begin(struct records *records)
{
	if (!records->tx)
		journal_read_begin(records->fs->journal);
}

void records_read_end(struct records *records)
{
	if (!records->tx)
		journal_read_end(records->fs->journal);
}

/* --- cursors ------------------------------------------------------------------------------------------------------------------------- */

struct batch_head {
	struct btree_key key;
	uint64_t length;
};

int cursor_begin(struct cursor *cursor, struct records *records, const struct btree *tree)
{
	*cursor = (struct cursor){.records = records, .tree = tree};
	cursor->batch = malloc(CURSOR_BYTES);
	return cursor->batch ? 0 : -ENOMEM;
}

void cursor_end(struct cursor *cursor)
{
	free(cursor->batch);
}

static int cursor_take(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct cursor *cursor = arg;
	struct batch_head head = {*key, length};
	size_t size = sizeof(head) + round_up_u64(length, 8);

	if (cursor->used + size > CURSOR_BYTES)
		return 1;
	memcpy(cursor->batch + cursor->used, &head, sizeof(head));
	if (length)
		memcpy(cursor->batch + cursor->used + sizeof(head), value, length);
	cursor->used += size;
	cursor->next = *key;
	return 0;
}

/* The key after this one; false: there is none. */
static bool key_step(struct btree_key *key, unsigned words)
{
	for (unsigned i = words; i-- > 0;)
		if (++key->word[i])
			return true;
	return false;
}

static int cursor_fill(struct cursor *cursor)
{
	struct btree_key last = {{0}};
	int more;

	for (unsigned i = 0; i < cursor->tree->ops->key_words; i++)
		last.word[i] = UINT64_MAX;
	cursor->used = cursor->at = 0;
	records_read_begin(cursor->records);
	more = btree_walk(cursor->tree, &cursor->next, &last, cursor_take, cursor);
	records_read_end(cursor->records);
	if (more < 0)
		return more;
	cursor->at_end = !more || !key_step(&cursor->next, cursor->tree->ops->key_words);
	return 0;
}

int cursor_peek(struct cursor *cursor, struct cursor_record *out)
{
	struct batch_head head;
	int error = 0;

	if (cursor->at == cursor->used && !cursor->at_end)
		error = cursor_fill(cursor);
	if (error || cursor->at == cursor->used)
		return error;
	memcpy(&head, cursor->batch + cursor->at, sizeof(head));
	*out = (struct cursor_record){head.key, cursor->batch + cursor->at + sizeof(head), head.length};
	return 1;
}

void cursor_advance(struct cursor *cursor)
{
	struct batch_head head;

	memcpy(&head, cursor->batch + cursor->at, sizeof(head));
	cursor->at += sizeof(head) + round_up_u64(head.length, 8);
}

int cursor_first_word(struct cursor *cursor, uint64_t *out)
{
	struct cursor_record record;
	int got = cursor_peek(cursor, &record);

	*out = got > 0 ? record.key.word[0] : UINT64_MAX;
	return got < 0 ? got : 0;
}

/* --- lookups --------------------------------------------------------------------------------------------------------------------------- */

int records_lookup(struct records *records, const struct btree *tree, const struct btree_key *key, struct btree_record *out)
{
	int error;

	records_read_begin(records);
	error = btree_lookup(tree, key, out);
	records_read_end(records);
	return error;
}

int records_lookup_le(struct records *records, const struct btree *tree, const struct btree_key *key, struct btree_record *out)
{
	int error;

	records_read_begin(records);
	error = btree_lookup_le(tree, key, out);
	records_read_end(records);
	return error;
}

int records_lookup_ge(struct records *records, const struct btree *tree, const struct btree_key *key, struct btree_record *out)
{
	int error;

	records_read_begin(records);
	error = btree_lookup_ge(tree, key, out);
	records_read_end(records);
	return error;
}

int records_load_inode(struct records *records, inum_t ino, struct inode_record *out)
{
	const struct btree_key key = {{ino}};
	struct btree_record found;
	int error = records_lookup(records, &records->fs->inodes, &key, &found);

	return error ? error : format_inode_unpack(out, found.value, found.length);
}

static void view_leaf(struct btree_path *path, bool found, struct leaf_view *out)
{
	const struct btree_step *leaf = path_last(path);

	out->found = found;
	out->is_known = found || (leaf->index > 0 && leaf->index < node_count(step_node(leaf)));
	out->sequence = buf_sequence(leaf->buf);
}

int records_view(struct records *records, const struct btree *tree, const struct btree_key *key, struct leaf_view *out)
{
	struct btree_path path;
	bool found;
	int error;

	*out = (struct leaf_view){0};
	records_read_begin(records);
	error = path_seek(&path, tree, key, &found);
	if (!error) {
		view_leaf(&path, found, out);
		path_end(&path);
	}
	records_read_end(records);
	return error == -ENOENT ? 0 : error;
}
