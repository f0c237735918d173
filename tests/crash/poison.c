/* Where poison may strike between a crash and the recovery from it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/journal_format.h"
#include "fs/inode.h"
#include "journal/chunk.h"
#include "tests/crash/pending.h"
#include "tests/crash/trial.h"

static const char *const poison_names[POISON_KINDS] = {"data", "primary", "replica", "root", "head", "record", "log", "super"};

const char *poison_name(enum poison_kind kind)
{
	return poison_names[kind];
}

bool poison_parse(const char *name, struct poison_target *target)
{
	for (unsigned i = 0; i < POISON_KINDS; i++) {
		size_t length = strlen(poison_names[i]);

		if (strncmp(name, poison_names[i], length) || name[length] != ':')
			continue;
		*target = (struct poison_target){.kind = i, .offset = strtoull(name + length + 1, NULL, 16), .length = LINE_BYTES};
		return true;
	}
	return false;
}

/* One of many, each as likely as the others. */
struct draw {
	uint64_t seed, met;
	uint64_t value;
};

static void draw_offer(struct draw *draw, uint64_t value)
{
	draw->met++;
	if (hash_mix(draw->seed + draw->met) % draw->met == 0)
		draw->value = value;
}

static int draw_data(void *arg, const struct rmap_record *record)
{
	if (record->owner < OWNER(0))
		for (uint64_t i = 0; i < record->count; i++)
			draw_offer(arg, (record->start + i) * BLOCK_BYTES);
	return 0;
}

static int draw_node(void *arg, maddr_t address, unsigned level, int error)
{
	draw_offer(arg, address);
	return 0;
}

static void draw_nodes(struct fs *fs, struct draw *draw)
{
	const struct btree *const trees[] = {&fs->inodes, &fs->dirents, &fs->parents,	&fs->extents,	 &fs->xattrs,
					     &fs->orphans, &fs->intents, &fs->rmap.tree, alloc_tree(fs->alloc)};

	for (size_t i = 0; i < ARRAY_SIZE(trees); i++)
		btree_walk_nodes(trees[i], draw_node, draw);
}

static int choose_node(struct fs *fs, unsigned copy, struct draw *draw)
{
	devoff_t offset[2];

	draw_nodes(fs, draw);
	if (!draw->met || chunk_map(fs->journal, draw->value, offset) || !offset[copy])
		return -ENOENT;
	draw->value = offset[copy];
	return 0;
}

static int choose_data(struct fs *fs, struct draw *draw)
{
	int error = rmap_query(&fs->rmap, 0, fs->super.size_bytes / BLOCK_BYTES, draw_data, draw);

	return error ? error : draw->met ? 0 : -ENOENT;
}

static devoff_t area_copy(const struct fs *fs, enum super_area area, uint64_t seed)
{
	return fs->super.areas[area].copy[seed & 1];
}

static int choose_place(struct fs *fs, enum poison_kind kind, uint64_t seed, struct draw *draw)
{
	switch (kind) {
	case POISON_DATA:
		return choose_data(fs, draw);
	case POISON_PRIMARY:
		return choose_node(fs, 0, draw);
	case POISON_REPLICA:
		return choose_node(fs, 1, draw);
	case POISON_ROOT:
		draw->value = area_copy(fs, AREA_FIXED, seed);
		return 0;
	case POISON_HEAD:
	case POISON_RECORD: /* where it begins is known by who has the bytes of the image */
		draw->value = area_copy(fs, AREA_JOURNAL, seed);
		return 0;
	case POISON_LOG:
		draw->value = area_copy(fs, AREA_POISON_LOG, seed);
		return 0;
	default:
		draw->value = super_slot_offset(hash_mix(seed) % SUPER_SLOTS);
		return 0;
	}
}

int poison_choose(struct fs *fs, enum poison_kind kind, uint64_t seed, struct poison_target *target)
{
	struct draw draw = {.seed = seed};
	int error;

	journal_read_begin(fs->journal);
	error = choose_place(fs, kind, seed, &draw);
	journal_read_end(fs->journal);
	if (!error)
		*target = (struct poison_target){kind, draw.value, LINE_BYTES};
	return error;
}
