#include "dump/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "journal/buf.h"
#include "journal/root.h"

/* --- opening ------------------------------------------------------------------------------------------------------------------- */

static int open_fs(struct dump *dump)
{
	struct fs_options options = {.readonly = true, .tools = true};

	return fs_mount_media(dump->media, &options, &dump->trouble, &dump->fs);
}

int dump_open(const char *path, struct why *why, struct dump **out)
{
	struct media_options options = {.readonly = true, .claim = true};
	struct dump *dump = calloc(1, sizeof(*dump));
	int error;

	if (!dump)
		return why_set(why, -ENOMEM, "out of memory");
	error = media_open(path, &options, why, &dump->media);
	if (error) {
		free(dump);
		return error;
	}
	if (open_fs(dump))
		dump->fs = NULL;
	else
		dump->trouble.text[0] = 0;
	error = fs_read_super(dump->media, &dump->super, why);
	if (!error) {
		*out = dump;
		return 0;
	}
	dump_close(dump);
	return error;
}

void dump_close(struct dump *dump)
{
	if (dump->fs)
		fs_unmount(dump->fs);
	media_close(dump->media);
	free(dump);
}

const char *dump_trouble(const struct dump *dump)
{
	return dump->trouble.text;
}

/* --- reading ------------------------------------------------------------------------------------------------------------------- */

int dump_read_raw(struct dump *dump, devoff_t offset, void *buffer, size_t length)
{
	bool some = false;

	if (!media_read(dump->media, offset, buffer, length, NULL))
		return 0;
	memset(buffer, 0, length);
	for (size_t i = 0; i < length; i += LINE_BYTES) {
		uint8_t *to = (uint8_t *)buffer + i;
		size_t step = min_u64(LINE_BYTES, length - i);

		if (media_read(dump->media, offset + i, to, step, NULL))
			memset(to, 0, step);
		else
			some = true;
	}
	return some ? 0 : -EIO;
}

static int read_copy(struct dump *dump, maddr_t address, struct dump_copy *copy, uint8_t *bytes)
{
	static const char *const states[] = {"whole", "poisoned", "damaged"};

	copy->field = "nothing";
	copy->error = media_read(dump->media, copy->offset, bytes, BLOCK_BYTES, NULL);
	if (!copy->error)
		copy->error = format_block_verify(bytes, dump->super.meta_uuid, address, &copy->field);
	copy->state = states[copy->error == 0 ? 0 : copy->error == -EIO ? 1 : 2];
	if (!copy->error)
		copy->sequence = le64_get(((struct format_block_header *)bytes)->sequence);
	return copy->error;
}

/* The better whole copy at home. */
static int read_home(struct dump *dump, struct dump_block *block)
{
	uint8_t other[BLOCK_BYTES] __attribute__((aligned(64)));
	int error = -EIO;

	for (unsigned k = 0; k < 2; k++) {
		struct dump_copy *copy = &block->copy[k];

		if (!copy->offset) {
			copy->state = "absent";
			copy->error = -ENOENT;
			continue;
		}
		if (read_copy(dump, block->address, copy, k ? other : block->bytes)) {
			error = !block->from ? copy->error : error;
			continue;
		}
		if (block->from && copy->sequence <= block->copy[0].sequence)
			continue;
		block->from = k ? "replica" : "primary";
		if (k)
			memcpy(block->bytes, other, BLOCK_BYTES);
	}
	return block->from ? 0 : error;
}

/* Recovery may have made it newer than both copies. */
static int read_recovered(struct dump *dump, struct dump_block *block)
{
	const size_t seal = offsetof(struct format_block_header, meta_uuid);
	const size_t sequence = offsetof(struct format_block_header, sequence);
	struct buf *buf;
	bool same;
	int error;

	if (!dump->fs)
		return -ENOENT;
	journal_read_begin(dump->fs->journal);
	error = buf_get_any(dump->fs->journal, block->address, &buf);
	if (!error) {
		/* Checksum and sequence are set at write-back only. */
		same = block->from && !memcmp(buf->data + seal, block->bytes + seal, sequence - seal) &&
		       !memcmp(buf->data + sequence + 8, block->bytes + sequence + 8, BLOCK_BYTES - sequence - 8);
		if (!same) {
			memcpy(block->bytes, buf->data, BLOCK_BYTES);
			block->from = "journal";
		}
		buf_put(buf);
	}
	journal_read_end(dump->fs->journal);
	return error;
}

static int locate(struct dump *dump, struct dump_block *block)
{
	const struct area *fixed = &dump->super.areas[AREA_FIXED];
	struct chunk_entry entry;
	int error;

	for (unsigned k = 0; k < 2 && maddr_is_fixed(block->address); k++)
		block->copy[k].offset = fixed->copy[k] ? fixed->copy[k] + block->address * BLOCK_BYTES : 0;
	if (maddr_is_fixed(block->address))
		return block->address < fixed->length_bytes / BLOCK_BYTES ? 0 : -ENOENT;
	error = dump_read_entry(dump, maddr_chunk(block->address), &entry);
	if (error)
		return error;
	if (maddr_index(block->address) >= chunk_blocks(entry.shift))
		return -ENOENT;
	for (unsigned k = 0; k < 2; k++)
		block->copy[k].offset = entry.copy[k] ? entry.copy[k] + maddr_index(block->address) * BLOCK_BYTES : 0;
	return 0;
}

int dump_read_block(struct dump *dump, maddr_t address, struct dump_block *out)
{
	int error, recovered;

	memset(out, 0, sizeof(*out));
	out->address = address;
	error = locate(dump, out);
	if (error)
		return error;
	error = read_home(dump, out);
	recovered = read_recovered(dump, out);
	return recovered ? error : 0;
}

/* --- chunks -------------------------------------------------------------------------------------------------------------------- */

int dump_read_entry(struct dump *dump, uint64_t chunk, struct chunk_entry *out)
{
	const struct format_chunk_table_block *table;
	struct dump_block block;
	const char *field;
	int error;

	if (chunk >= dump_count_chunks(dump))
		return -ENOENT;
	error = dump_read_block(dump, MADDR_TABLE + chunk / CHUNK_ENTRIES_PER_BLOCK, &block);
	table = (const struct format_chunk_table_block *)block.bytes;
	if (!error && table->header.role != FORMAT_ROLE_CHUNK_TABLE)
		error = -EUCLEAN;
	if (!error)
		error = format_chunk_entry_unpack(out, &table->entries[chunk % CHUNK_ENTRIES_PER_BLOCK], &field);
	return !error && out->state == FORMAT_CHUNK_FREE ? -ENOENT : error;
}

uint64_t dump_count_chunks(struct dump *dump)
{
	uint64_t most = (dump->super.areas[AREA_FIXED].length_bytes / BLOCK_BYTES - 1) * CHUNK_ENTRIES_PER_BLOCK;
	struct dump_block block;
	const struct format_root *root = (const struct format_root *)block.bytes;

	if (dump_read_block(dump, MADDR_ROOT, &block) || root->header.role != FORMAT_ROLE_ROOT)
		return most;
	return min_u64(most, le64_get(root->counters[ROOT_CHUNKS]));
}
