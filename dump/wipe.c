/* What a cleanly unmounted image still holds of names that are gone: in places that nothing refers to. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dump/internal.h"
#include "dump/scramble.h"

struct wipe {
	struct dump *dump;
	int fd;
	struct iset kept; /* metadata */
};

static int put(struct wipe *wipe, devoff_t offset, const void *bytes)
{
	ssize_t done = pwrite(wipe->fd, bytes, BLOCK_BYTES, (off_t)offset);

	return done == BLOCK_BYTES ? 0 : done < 0 ? -errno : -EIO;
}

/* Zeros in what no record uses. */
static void clean_node(struct format_node *node)
{
	bool used[BLOCK_BYTES] = {false};
	size_t slots = sizeof(*node) + node_count(node) * sizeof(struct format_node_slot);

	memset(used, true, slots);
	for (unsigned i = 0; i < node_count(node); i++)
		memset(used + le16_get(node->slots[i].offset), true, le16_get(node->slots[i].length));
	for (size_t i = 0; i < BLOCK_BYTES; i++)
		if (!used[i])
			((uint8_t *)node)[i] = 0;
	format_block_seal(node, le64_get(node->header.sequence));
}

static int wipe_live(struct wipe *wipe, maddr_t address)
{
	struct dump_block block;
	struct format_node *node = (struct format_node *)block.bytes;
	struct btree_ops ops;
	const char *field;
	int error = dump_read_block(wipe->dump, address, &block);

	if (error || node->header.role != FORMAT_ROLE_NODE)
		return error;
	ops = (struct btree_ops){.tree = node->header.tree, .key_words = dump_key_words(node->header.tree)};
	if (node_verify(node, &ops, &field))
		return -EUCLEAN;
	clean_node(node);
	for (unsigned k = 0; k < 2 && !error; k++)
		if (block.copy[k].offset)
			error = put(wipe, block.copy[k].offset, node);
	return error;
}

static int wipe_chunk(struct wipe *wipe, uint64_t chunk, const struct chunk_entry *entry)
{
	static const uint8_t zeros[BLOCK_BYTES];
	int error = 0;

	for (unsigned i = 0; i < chunk_blocks(entry->shift) && !error; i++) {
		if (entry->map[i / 64] >> i % 64 & 1) {
			error = wipe_live(wipe, maddr_of_chunk(chunk, i));
			continue;
		}
		for (unsigned k = 0; k < 2 && !error; k++)
			if (entry->copy[k])
				error = put(wipe, entry->copy[k] + i * BLOCK_BYTES, zeros);
	}
	for (unsigned k = 0; k < 2 && !error; k++)
		if (entry->copy[k])
			error = iset_add(&wipe->kept, entry->copy[k], entry->copy[k] + (1ull << entry->shift), 0);
	return error;
}

static int wipe_chunks(struct wipe *wipe)
{
	uint64_t count = dump_count_chunks(wipe->dump);
	int error = 0;

	for (uint64_t chunk = 0; chunk < count && !error; chunk++) {
		struct chunk_entry entry;

		error = dump_read_entry(wipe->dump, chunk, &entry);
		if (!error)
			error = wipe_chunk(wipe, chunk, &entry);
		else if (error == -ENOENT)
			error = 0;
	}
	return error;
}

/* Of the journal only the heads: a clean unmount left nothing else to replay. */
static int keep_fixed(struct wipe *wipe)
{
	const struct super *super = &wipe->dump->super;
	int error = 0;

	for (unsigned slot = 0; slot < SUPER_SLOTS && !error; slot++)
		error = iset_add(&wipe->kept, super_slot_offset(slot), super_slot_offset(slot) + BLOCK_BYTES, 0);
	for (unsigned area = 0; area < AREA_COUNT && !error; area++)
		for (unsigned k = 0; k < format_area_copies(super, area) && !error; k++) {
			devoff_t from = super->areas[area].copy[k];

			error = iset_add(&wipe->kept, from, from + (area == AREA_JOURNAL ? BLOCK_BYTES : super->areas[area].length_bytes), 0);
		}
	return error;
}

static int punch(struct wipe *wipe, devoff_t from, devoff_t to)
{
	if (from >= to || !fallocate(wipe->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from)))
		return 0;
	return -errno;
}

static int punch_rest(struct wipe *wipe)
{
	devoff_t from = 0;
	int error = 0;

	for (size_t i = 0; i < wipe->kept.count && !error; i++) {
		error = punch(wipe, from, wipe->kept.ranges[i].start);
		from = wipe->kept.ranges[i].end;
	}
	return error ? error : punch(wipe, from, wipe->dump->super.size_bytes);
}

int scramble_wipe(const char *path, int fd, struct why *why)
{
	struct wipe wipe = {.fd = fd};
	int error = dump_open(path, why, &wipe.dump);

	if (error)
		return error;
	iset_init(&wipe.kept);
	error = wipe.dump->fs ? wipe_chunks(&wipe) : -EUCLEAN;
	if (!error)
		error = keep_fixed(&wipe);
	if (!error)
		error = punch_rest(&wipe);
	iset_fini(&wipe.kept);
	dump_close(wipe.dump);
	return error ? why_set(why, error, "what held the names before cannot be wiped: %s", strerror(-error)) : 0;
}
