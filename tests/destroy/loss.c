#include <stdlib.h>
#include <string.h>

#include "btree/node.h"
#include "tests/destroy/judge.h"

static void set_add(struct iset *set, uint64_t from, uint64_t to)
{
	if (iset_add(set, from, to, 0))
		abort();
}

static void *grow(void **list, size_t *count, size_t *capacity, size_t size)
{
	if (*count == *capacity) {
		*capacity = *capacity ? 2 * *capacity : 64;
		*list = realloc(*list, *capacity * size);
		if (!*list)
			abort();
	}
	return (char *)*list + (*count)++ * size;
}

static void lose_names(struct loss *loss, const struct target *dirents, const struct target *parents)
{
	for (size_t i = 0; i < parents->count_keys; i++)
		for (size_t j = 0; j < dirents->count_keys; j++) {
			const uint64_t *parent = parents->keys[i].word, *entry = dirents->keys[j].word;
			struct loss_name *name;

			if (parent[1] != entry[0] || parent[2] != entry[1])
				continue;
			name = grow((void **)&loss->names, &loss->count_names, &loss->capacity_names, sizeof(*name));
			*name = (struct loss_name){parent[0], parent[1], parent[2]};
		}
}

static void lose_maps(struct loss *loss, const struct target *extents, const struct target *rmap)
{
	for (size_t i = 0; i < extents->count_keys; i++)
		for (size_t j = 0; j < rmap->count_keys; j++) {
			uint64_t from = max_u64(extents->keys[i].word[1], rmap->keys[j].word[2]);
			uint64_t to = min_u64(extents->ends[i], rmap->ends[j]);
			struct loss_map *map;

			if (extents->keys[i].word[0] != rmap->keys[j].word[1] || from >= to)
				continue;
			map = grow((void **)&loss->maps, &loss->count_maps, &loss->capacity_maps, sizeof(*map));
			*map = (struct loss_map){extents->keys[i].word[0], from, to};
		}
}

static bool is_ledger(unsigned tree)
{
	return tree == FORMAT_TREE_BADBLOCKS || tree == FORMAT_TREE_LOST || tree == FORMAT_TREE_DAMAGED;
}

static void lose_pair(struct loss *loss, const struct target *a, const struct target *b)
{
	if (a->tree == FORMAT_TREE_DIRENTS && b->tree == FORMAT_TREE_PARENTS)
		lose_names(loss, a, b);
	if (a->tree == FORMAT_TREE_EXTENTS && b->tree == FORMAT_TREE_RMAP)
		lose_maps(loss, a, b);
	if (is_ledger(a->tree) && b->tree == FORMAT_TREE_LEDGER_COPY)
		loss->ledger = true;
}

static void lose_attribute(struct loss *loss, const struct btree_key *key)
{
	struct loss_attribute *to;

	if (!key->word[1]) {
		set_add(&loss->targets, key->word[0], key->word[0] + 1);
		return;
	}
	to = grow((void **)&loss->attributes, &loss->count_attributes, &loss->capacity_attributes, sizeof(*to));
	*to = (struct loss_attribute){key->word[0], key->word[1]};
}

void loss_compute(const struct targets *targets, const size_t *gone, const bool *is_stale, size_t count_gone, struct loss *out)
{
	memset(out, 0, sizeof(*out));
	iset_init(&out->inodes);
	iset_init(&out->stale);
	iset_init(&out->revived);
	iset_init(&out->targets);
	iset_init(&out->bad);
	for (size_t i = 0; i < count_gone; i++) {
		const struct target *target = &targets->list[gone[i]];

		for (size_t j = 0; j < target->count_keys; j++) {
			uint64_t ino = target->keys[j].word[0];

			if (target->tree == FORMAT_TREE_INODES)
				set_add(&out->inodes, ino, ino + 1);
			if (target->tree == FORMAT_TREE_INODES && is_stale[i])
				set_add(&out->stale, ino, ino + 1);
			if (target->tree == FORMAT_TREE_XATTRS)
				lose_attribute(out, &target->keys[j]);
		}
		for (size_t j = 0; j < count_gone; j++) {
			const struct target *other = &targets->list[gone[j]];

			lose_pair(out, target, other);
			out->names_are_doubtful |= is_stale[i] && ((target->tree == FORMAT_TREE_DIRENTS && other->tree == FORMAT_TREE_PARENTS) ||
								   (target->tree == FORMAT_TREE_PARENTS && other->tree == FORMAT_TREE_DIRENTS));
		}
	}
}

static inum_t record_ino(unsigned tree, const struct btree_key *key, const void *value, size_t length)
{
	struct dirent_record entry;

	if (tree != FORMAT_TREE_DIRENTS)
		return key->word[0];
	return format_dirent_unpack(&entry, value, length) ? 0 : entry.ino;
}

void loss_add_stale(struct loss *loss, const struct target *target, const void *bytes)
{
	const struct format_node *node = bytes;
	const struct btree_ops ops = {.tree = target->tree, .key_words = node->key_words};
	const char *field;

	if (target->tree != FORMAT_TREE_INODES && target->tree != FORMAT_TREE_DIRENTS && target->tree != FORMAT_TREE_PARENTS &&
	    target->tree != FORMAT_TREE_XATTRS)
		return;
	if (node->header.role != FORMAT_ROLE_NODE || node->header.tree != target->tree || node->level || node_verify(node, &ops, &field))
		return;
	for (unsigned i = 0; i < node_count(node); i++) {
		struct btree_key key;
		size_t length;
		const void *value = node_value(node, i, &length);
		inum_t ino;

		node_key(node, i, &key);
		if (target->tree == FORMAT_TREE_XATTRS) {
			lose_attribute(loss, &key);
			continue;
		}
		ino = record_ino(target->tree, &key, value, length);
		if (ino)
			set_add(&loss->revived, ino, ino + 1);
	}
}

void loss_fini(struct loss *loss)
{
	iset_fini(&loss->inodes);
	iset_fini(&loss->stale);
	iset_fini(&loss->revived);
	iset_fini(&loss->targets);
	iset_fini(&loss->bad);
	free(loss->names);
	free(loss->maps);
	free(loss->attributes);
}
