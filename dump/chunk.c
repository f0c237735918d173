#include "dump/internal.h"

#include <errno.h>

struct json_object *dump_render_entry(uint64_t chunk, const struct chunk_entry *entry)
{
	struct json_object *element = element_make("chunk");

	if (!element)
		return NULL;
	json_add_u64(element, "chunk", chunk);
	json_add_u64(element, "address", maddr_of_chunk(chunk, 0));
	json_add_text(element, "state",
		      entry->state == FORMAT_CHUNK_LIVE ? "live" : entry->state == FORMAT_CHUNK_FREEING ? "freeing" : "free");
	json_add_u64(element, "generation", entry->generation);
	if (entry->state == FORMAT_CHUNK_FREE)
		return element;
	json_add_u64(element, "primary", entry->copy[0]);
	if (entry->copy[1])
		json_add_u64(element, "replica", entry->copy[1]);
	json_add_u64(element, "len", 1ull << entry->shift);
	json_add_u64(element, "blocks", chunk_blocks(entry->shift));
	json_add_u64(element, "free_blocks", entry->free_blocks);
	return element;
}

static int entry_show(struct dump *dump, const struct dump_request *request, uint64_t chunk, bool always)
{
	struct chunk_entry entry;
	struct json_object *element;
	int error = dump_read_entry(dump, chunk, &entry);

	if (error == -ENOENT && !always)
		return 0;
	if (!error)
		return element_emit(request, dump_render_entry(chunk, &entry));
	element = element_make("chunk");
	if (!element)
		return -ENOMEM;
	json_add_u64(element, "chunk", chunk);
	json_add_text(element, "state", error == -ENOENT ? "free" : error == -EIO ? "poisoned" : "damaged");
	return element_emit(request, element);
}

int dump_chunks(struct dump *dump, const struct dump_request *request, struct why *why)
{
	uint64_t count = dump_count_chunks(dump);
	int error = 0;

	for (uint64_t chunk = 0; chunk < count && !error; chunk++)
		error = entry_show(dump, request, chunk, false);
	return error;
}

static int block_show(struct dump *dump, const struct dump_request *request, maddr_t address)
{
	struct dump_block block;
	int error = dump_read_block(dump, address, &block);

	return element_emit(request, dump_render_block(&block, error));
}

int dump_chunk(struct dump *dump, const struct dump_request *request, struct why *why)
{
	uint64_t count = dump_count_chunks(dump);
	struct chunk_entry entry;
	int error;

	if (request->number >= count)
		return why_set(why, -ERANGE, "there is no chunk %llu: %llu were ever used", (unsigned long long)request->number,
			       (unsigned long long)count);
	error = entry_show(dump, request, request->number, true);
	if (error || dump_read_entry(dump, request->number, &entry))
		return error;
	for (unsigned i = 0; i < chunk_blocks(entry.shift) && !error; i++)
		if (entry.map[i / 64] >> i % 64 & 1)
			error = block_show(dump, request, maddr_of_chunk(request->number, i));
	return error;
}
