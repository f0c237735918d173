#include "tests/crash/model_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t zeros[BLOCK_BYTES];

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

/* --- blocks --------------------------------------------------------------------------------------------------------------- */

static struct model_block *block_get(struct model_block *block)
{
	if (block)
		block->references++;
	return block;
}

static void block_put(struct model_block *block)
{
	if (block && --block->references == 0)
		free(block);
}

static struct model_block *block_edit(struct model_block *block)
{
	struct model_block *mine;

	if (block && block->references == 1)
		return block;
	mine = must(malloc(sizeof(*mine)));
	mine->references = 1;
	memcpy(mine->bytes, block ? block->bytes : zeros, BLOCK_BYTES);
	block_put(block);
	return mine;
}

/* --- inodes --------------------------------------------------------------------------------------------------------------- */

static void inode_fini_blocks(struct model_inode *inode)
{
	for (size_t i = 0; i < inode->count_blocks; i++)
		block_put(inode->blocks[i]);
	free(inode->blocks);
	free(inode->places);
}

static void model_inode_put(struct model_inode *inode)
{
	if (--inode->references)
		return;
	for (unsigned i = 0; i < inode->count_names; i++)
		free(inode->names[i].name);
	inode_fini_blocks(inode);
	free(inode->target);
	free(inode);
}

static struct model_inode *inode_clone(const struct model_inode *from)
{
	struct model_inode *inode = must(malloc(sizeof(*inode)));

	*inode = *from;
	inode->references = 1;
	for (unsigned i = 0; i < inode->count_names; i++)
		inode->names[i].name = must(strdup(from->names[i].name));
	inode->target = from->target ? must(strdup(from->target)) : NULL;
	inode->blocks = must(calloc(from->count_blocks + 1, sizeof(*inode->blocks)));
	inode->places = must(calloc(from->count_blocks + 1, sizeof(*inode->places)));
	for (size_t i = 0; i < from->count_blocks; i++) {
		inode->blocks[i] = block_get(from->blocks[i]);
		inode->places[i] = from->places[i];
	}
	return inode;
}

struct model_name *inode_find_name(const struct model_inode *dir, const char *name)
{
	for (unsigned i = 0; i < dir->count_names; i++)
		if (!strcmp(dir->names[i].name, name))
			return (struct model_name *)&dir->names[i];
	return NULL;
}

void inode_add_name(struct model_inode *dir, const char *name, inum_t ino)
{
	assert(dir->count_names < STATE_NAMES_MAX);
	dir->names[dir->count_names++] = (struct model_name){must(strdup(name)), ino};
	dir->record.entries++;
}

void inode_remove_name(struct model_inode *dir, const char *name)
{
	struct model_name *found = inode_find_name(dir, name);

	free(found->name);
	*found = dir->names[--dir->count_names];
	dir->record.entries--;
}

const uint8_t *inode_block(const struct model_inode *inode, size_t index)
{
	if (index >= inode->count_blocks || !inode->blocks[index])
		return zeros;
	return inode->blocks[index]->bytes;
}

void inode_read(const struct model_inode *inode, uint64_t pos, void *buffer, size_t size)
{
	uint8_t *to = buffer;

	while (size) {
		size_t at = pos % BLOCK_BYTES, length = min_u64(size, BLOCK_BYTES - at);

		memcpy(to, inode_block(inode, pos / BLOCK_BYTES) + at, length);
		to += length;
		pos += length;
		size -= length;
	}
}

static void inode_set_count(struct model_inode *inode, size_t count)
{
	for (size_t i = count; i < inode->count_blocks; i++)
		block_put(inode->blocks[i]);
	inode->blocks = must(realloc(inode->blocks, (count + 1) * sizeof(*inode->blocks)));
	inode->places = must(realloc(inode->places, (count + 1) * sizeof(*inode->places)));
	for (size_t i = inode->count_blocks; i < count; i++) {
		inode->blocks[i] = NULL;
		inode->places[i] = 0;
	}
	inode->count_blocks = count;
}

void inode_resize(struct model_inode *inode, uint64_t size)
{
	size_t at = size % BLOCK_BYTES, last = size / BLOCK_BYTES;

	assert(size <= MODEL_FILE_BYTES_MAX);
	inode_set_count(inode, last + (at != 0));
	if (at && size < inode->record.size_bytes && inode->blocks[last]) {
		inode->blocks[last] = block_edit(inode->blocks[last]);
		memset(inode->blocks[last]->bytes + at, 0, BLOCK_BYTES - at);
	}
	inode->record.size_bytes = size;
}

void inode_write(struct model_inode *inode, uint64_t pos, const void *buffer, size_t size)
{
	const uint8_t *from = buffer;

	if (pos + size > inode->record.size_bytes && size)
		inode_resize(inode, pos + size);
	while (size) {
		size_t at = pos % BLOCK_BYTES, length = min_u64(size, BLOCK_BYTES - at);
		struct model_block **block = &inode->blocks[pos / BLOCK_BYTES];

		*block = block_edit(*block);
		memcpy((*block)->bytes + at, from ? from : zeros, length);
		from = from ? from + length : NULL;
		pos += length;
		size -= length;
	}
}

void inode_share_blocks(struct model_inode *to, const struct model_inode *from)
{
	inode_set_count(to, 0);
	inode_set_count(to, from->count_blocks);
	for (size_t i = 0; i < from->count_blocks; i++)
		to->blocks[i] = block_get(from->blocks[i]);
	to->record.size_bytes = from->record.size_bytes;
}

/* --- states --------------------------------------------------------------------------------------------------------------- */

void state_fini(struct model_state *state)
{
	for (unsigned i = 0; i < state->count_inodes; i++)
		model_inode_put(state->inodes[i]);
	state->count_inodes = 0;
}

void state_copy(struct model_state *to, const struct model_state *from)
{
	*to = *from;
	for (unsigned i = 0; i < to->count_inodes; i++)
		to->inodes[i]->references++;
}

static struct model_inode **state_slot(const struct model_state *state, inum_t ino)
{
	for (unsigned i = 0; i < state->count_inodes; i++)
		if (state->inodes[i]->ino == ino)
			return (struct model_inode **)&state->inodes[i];
	return NULL;
}

struct model_inode *state_find(const struct model_state *state, inum_t ino)
{
	struct model_inode **slot = state_slot(state, ino);

	return slot ? *slot : NULL;
}

struct model_inode *state_edit(struct model_state *state, inum_t ino)
{
	struct model_inode **slot = state_slot(state, ino);
	struct model_inode *mine;

	if (!slot || (*slot)->references == 1)
		return slot ? *slot : NULL;
	mine = inode_clone(*slot);
	model_inode_put(*slot);
	*slot = mine;
	return mine;
}

struct model_inode *state_add(struct model_state *state, inum_t ino, mode_t mode)
{
	struct model_inode *inode = must(calloc(1, sizeof(*inode)));

	assert(state->count_inodes < STATE_INODES_MAX);
	inode->references = 1;
	inode->ino = ino;
	inode->record.mode = mode;
	inode_set_count(inode, 0);
	state->inodes[state->count_inodes++] = inode;
	return inode;
}

void state_remove(struct model_state *state, inum_t ino)
{
	struct model_inode **slot = state_slot(state, ino);

	model_inode_put(*slot);
	*slot = state->inodes[--state->count_inodes];
}
