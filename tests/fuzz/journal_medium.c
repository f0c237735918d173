#include "tests/fuzz/journal_medium.h"

#include <stdio.h>
#include <stdlib.h>

#include "format/chunk_format.h"
#include "format/journal_format.h"
#include "format/poison_format.h"
#include "journal/buf.h"
#include "journal/log.h"
#include "journal/tx.h"
#include "notify/poison_log.h"
#include "tests/fuzz/seal.h"

#define KIB 1024ull
#define MEDIUM_BYTES (2048 * KIB)
#define RING_BYTES (64 * KIB)
#define CHUNK_SHIFT 16
#define RECORD_BYTES_MAX (16 * KIB) /* of those an input makes */

static void must(int error, const char *what)
{
	if (!error)
		return;
	fprintf(stderr, "journal medium: %s: %s\n", what, strerror(-error));
	abort();
}

static void init_super(struct journal_medium *m, unsigned copies)
{
	static const struct area areas[] = {
		[AREA_JOURNAL] = {{256 * KIB, 1280 * KIB}, RING_BYTES + BLOCK_BYTES},
		[AREA_POISON_LOG] = {{384 * KIB, 1408 * KIB}, POISON_LOG_BYTES},
		[AREA_FIXED] = {{512 * KIB, 1536 * KIB}, 16 * KIB},
	};

	m->super = (struct super){.size_bytes = MEDIUM_BYTES, .chunk_shift = CHUNK_SHIFT, .copies = (uint8_t)copies};
	for (unsigned i = 0; i < FORMAT_UUID_BYTES; i++)
		m->super.meta_uuid[i] = (uint8_t)(0x10 + i);
	m->chunk[0] = 640 * KIB;
	m->chunk[1] = copies == 2 ? 1664 * KIB : 0;
	memcpy(m->super.areas, areas, sizeof(areas));
	for (unsigned i = 0; i < ARRAY_SIZE(areas) && copies == 1; i++)
		m->super.areas[i].copy[1] = 0;
}

static void fill_block(struct tx *tx, maddr_t *address, unsigned value)
{
	struct buf *buf = NULL;

	must(buf_create(tx, FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf), "block");
	memset(buf->data + sizeof(struct format_block_header), (int)value, BLOCK_BYTES - sizeof(struct format_block_header));
	*address = buf->address;
	buf_put(buf);
}

static void fill(struct journal_medium *m)
{
	struct journal_options options = {.cache_bytes = 1u << 20};
	struct journal *journal = NULL;
	struct tx *tx = NULL;
	struct why why = {0};

	must(journal_open(medium_media(m->medium), &m->super, &options, &why, &journal), why.text);
	for (unsigned i = 0; i < JOURNAL_BLOCKS; i++) {
		must(tx_begin(journal, TX_RESERVE, &tx), "begin"); /* the chunk is smaller than the reserve */
		fill_block(tx, &m->blocks[i], i);
		must(tx_commit(tx, NULL), "commit");
	}
	must(journal_close(journal), "close");
}

void journal_medium_make(struct journal_medium *m, unsigned copies)
{
	const struct format_journal_head *head;

	init_super(m, copies);
	must(medium_create(MEDIUM_BYTES, MEDIA_CACHELINE, &m->medium), "create");
	must(poison_log_format(medium_media(m->medium), &m->super), "poison log");
	must(journal_format(medium_media(m->medium), &m->super, m->chunk), "format");
	fill(m);
	lab_reset(medium_lab(m->medium));
	must(medium_keep(m->medium), "keep");
	head = (const void *)(medium_kept(m->medium) + m->super.areas[AREA_JOURNAL].copy[0]);
	m->sequence = le64_get(head->tail_sequence);
	m->offset = le64_get(head->tail_offset);
	m->epoch = le32_get(head->epoch);
}

maddr_t journal_medium_address(const struct journal_medium *m, unsigned index)
{
	if (index < JOURNAL_BLOCKS)
		return m->blocks[index];
	if (index < JOURNAL_BLOCKS + 6) /* root, table, and beyond the fixed area */
		return index - JOURNAL_BLOCKS;
	if (index < 64)
		return MADDR_CHUNK_BASE + (index - 16) * 9;
	return (maddr_t)index << (index % 53);
}

/* --- the areas, for orders that say where --- */

struct range {
	devoff_t offset;
	uint64_t length;
};

static struct range area_of(const struct journal_medium *m, unsigned index)
{
	static const uint8_t areas[] = {AREA_JOURNAL, AREA_POISON_LOG, AREA_FIXED};
	unsigned copy = index / ARRAY_SIZE(areas) % 2;
	const struct area *area = &m->super.areas[areas[index % ARRAY_SIZE(areas)]];

	if (index >= 2 * ARRAY_SIZE(areas))
		return (struct range){m->chunk[m->super.copies == 2 ? index % 2 : 0], 1u << CHUNK_SHIFT};
	return (struct range){area->copy[copy] ? area->copy[copy] : area->copy[0], area->length_bytes};
}

/* --- records --- */

static void put_both(struct journal_medium *m, unsigned area, uint64_t offset, const void *bytes, size_t length, uint8_t copies)
{
	const struct area *at = &m->super.areas[area];

	for (unsigned copy = 0; copy < m->super.copies; copy++)
		if (!(copies & 3) || copies & 1u << copy)
			memcpy(medium_change(m->medium, at->copy[copy] + offset, length), bytes, length);
}

static uint32_t boot_of(uint8_t flags)
{
	if (flags & JOURNAL_NO_BOOT)
		return 0;
	return flags & JOURNAL_OTHER_BOOT ? 7 : log_boot_id();
}

static size_t take_items(const struct journal_medium *m, uint8_t *record, unsigned items, struct bytes *bytes)
{
	struct format_record_item *item = (struct format_record_item *)(record + sizeof(struct format_record_header));
	size_t at = record_lines_offset(items);

	for (unsigned i = 0; i < items; i++) {
		uint16_t block = bytes_u16(bytes);
		uint64_t lines = bytes_u64(bytes);
		uint8_t flags = bytes_u8(bytes), value = bytes_u8(bytes);

		while (at + (size_t)__builtin_popcountll(lines) * LINE_BYTES > RECORD_BYTES_MAX)
			lines &= lines - 1;
		item[i].address = le64_make(journal_medium_address(m, block));
		item[i].lines = le64_make(lines);
		item[i].flags = le32_make(flags);
		memset(record + at, value, (size_t)__builtin_popcountll(lines) * LINE_BYTES);
		at += (size_t)__builtin_popcountll(lines) * LINE_BYTES;
	}
	return at;
}

struct record_wish {
	uint8_t type, flags, copies;
	int8_t sequence, epoch, place;
	int16_t durable;
};

static void fill_header(const struct journal_medium *m, const struct record_wish *wish, uint8_t *record, unsigned items, size_t length)
{
	static const uint16_t types[] = {FORMAT_RECORD_TX, FORMAT_RECORD_JUMP, FORMAT_RECORD_MARK, 0};
	struct format_record_header *header = (struct format_record_header *)record;

	header->magic = le32_make(FORMAT_RECORD_MAGIC);
	memcpy(header->meta_uuid, m->super.meta_uuid, FORMAT_UUID_BYTES);
	header->meta_uuid[0] ^= wish->flags & JOURNAL_FOREIGN ? 1 : 0;
	header->sequence = le64_make(m->sequence + (uint64_t)(int64_t)wish->sequence);
	header->length = le32_make((uint32_t)length);
	if (wish->flags & JOURNAL_SHORT)
		header->length = le32_make((uint32_t)(wish->type & 4 || length == LINE_BYTES ? length + LINE_BYTES : length - LINE_BYTES));
	header->type = le16_make(types[wish->type % 4]);
	header->items = le16_make((uint16_t)items);
	header->durable_up_to = le64_make(m->sequence - 1 + (uint64_t)(int64_t)wish->durable);
	header->epoch = le32_make(m->epoch + (uint32_t)(int32_t)wish->epoch);
	header->boot = le32_make(boot_of(wish->flags));
	header->offset = le64_make(m->offset + (uint64_t)((int64_t)wish->place * LINE_BYTES));
	if (!(wish->flags & JOURNAL_RAW))
		seal_struct(record, le32_get(header->length));
}

static void advance(struct journal_medium *m, const struct record_wish *wish, const uint8_t *record, size_t length)
{
	const struct format_record_header *header = (const struct format_record_header *)record;

	m->last_offset = m->offset;
	m->last_length = length;
	if (wish->flags & JOURNAL_STAY)
		return;
	m->sequence++;
	m->offset += length;
	if (wish->type % 4 == 1 && le64_get(header->offset) % LINE_BYTES == 0 && le64_get(header->offset) < RING_BYTES)
		m->offset = le64_get(header->offset);
}

static void do_record(struct journal_medium *m, struct bytes *bytes)
{
	static uint8_t record[RECORD_BYTES_MAX + BLOCK_BYTES] __attribute__((aligned(64)));
	struct record_wish wish = {.type = bytes_u8(bytes), .flags = bytes_u8(bytes), .copies = bytes_u8(bytes)};
	unsigned items;
	size_t length;

	wish.sequence = (int8_t)bytes_u8(bytes);
	wish.epoch = (int8_t)bytes_u8(bytes);
	wish.place = (int8_t)bytes_u8(bytes);
	wish.durable = (int16_t)bytes_u16(bytes);
	items = bytes_u8(bytes) % 12;
	if (wish.type % 4 == 1 || wish.type % 4 == 2) /* jump, mark */
		items = 0;
	memset(record, 0, sizeof(record));
	length = take_items(m, record, items, bytes);
	if (m->offset + length > RING_BYTES)
		return;
	fill_header(m, &wish, record, items, length);
	put_both(m, AREA_JOURNAL, BLOCK_BYTES + m->offset, record, length, wish.copies);
	advance(m, &wish, record, length);
}

static void do_head(struct journal_medium *m, struct bytes *bytes)
{
	uint8_t flags = bytes_u8(bytes), copies = bytes_u8(bytes), field = bytes_u8(bytes) % 7;
	uint64_t value = bytes_u64(bytes);
	struct format_journal_head head;

	memcpy(&head, medium_kept(m->medium) + m->super.areas[AREA_JOURNAL].copy[0], sizeof(head));
	/* The newer of two heads, unless the field says otherwise. */
	head.update = le64_make(le64_get(head.update) + 1);
	if (field < 2)
		head.tail_offset = le64_make(value % (2 * RING_BYTES));
	else if (field == 2)
		head.tail_sequence = le64_make(value);
	else if (field == 3)
		head.epoch = le32_make((uint32_t)value);
	else
		memcpy((uint8_t *)&head + 8 * (value % 8), &value, sizeof(value));
	if (!(flags & JOURNAL_RAW))
		seal_struct((uint8_t *)&head, sizeof(head));
	put_both(m, AREA_JOURNAL, 0, &head, sizeof(head), copies);
	if (flags & JOURNAL_STAY) /* what follows goes on from the old head */
		return;
	m->offset = le64_get(head.tail_offset) / LINE_BYTES * LINE_BYTES;
	m->sequence = le64_get(head.tail_sequence);
	m->epoch = le32_get(head.epoch);
}

/* --- blocks at home, poison, poison log --- */

static devoff_t home_of(const struct journal_medium *m, maddr_t address, unsigned copy)
{
	if (maddr_is_fixed(address))
		return address < 4 ? m->super.areas[AREA_FIXED].copy[copy] + address * BLOCK_BYTES : 0;
	return maddr_chunk(address) == 0 && maddr_index(address) < chunk_blocks(CHUNK_SHIFT) ? m->chunk[copy] + maddr_index(address) * BLOCK_BYTES
											     : 0;
}

static void do_home(struct journal_medium *m, struct bytes *bytes)
{
	maddr_t address = journal_medium_address(m, bytes_u16(bytes));
	uint8_t flags = bytes_u8(bytes), copies = bytes_u8(bytes);
	int8_t sequence = (int8_t)bytes_u8(bytes);
	size_t offset = bytes_u16(bytes) % BLOCK_BYTES;

	for (unsigned copy = 0; copy < m->super.copies; copy++) {
		devoff_t home = home_of(m, address, copy);
		struct format_block_header *header;

		if (!home || (copies & 3 && !(copies & 1u << copy)))
			continue;
		header = (struct format_block_header *)medium_change(m->medium, home, BLOCK_BYTES);
		memcpy((uint8_t *)header + offset, bytes->at, min_u64(bytes->left, BLOCK_BYTES - offset));
		header->sequence = le64_make(le64_get(header->sequence) + (uint64_t)(int64_t)sequence);
		if (!(flags & JOURNAL_RAW))
			seal_struct((uint8_t *)header, BLOCK_BYTES);
	}
}

static void do_poison(struct journal_medium *m, struct bytes *bytes)
{
	struct range area = area_of(m, bytes_u8(bytes) % JOURNAL_AREAS);
	uint64_t offset = bytes_u32(bytes) % area.length;

	lab_poison(medium_lab(m->medium), area.offset + offset, 1 + bytes_u16(bytes) % (area.length - offset));
}

static void do_tear(struct journal_medium *m, struct bytes *bytes)
{
	static const uint8_t zeros[BLOCK_BYTES];
	uint8_t copies = bytes_u8(bytes);
	uint64_t at = bytes_u16(bytes) % 64 * LINE_BYTES, length = (1 + bytes_u8(bytes) % 64) * LINE_BYTES;

	if (at < m->last_length)
		put_both(m, AREA_JOURNAL, BLOCK_BYTES + m->last_offset + at, zeros, min_u64(length, m->last_length - at), copies);
}

static void do_entry(struct journal_medium *m, struct bytes *bytes)
{
	uint8_t flags = bytes_u8(bytes), copies = bytes_u8(bytes);
	const uint64_t slots = POISON_LOG_BYTES / sizeof(struct format_poison_entry);
	struct poison_entry entry = {.sequence = bytes_u16(bytes), .time_ns = 1, .cause_id = 1};
	struct format_poison_entry raw;
	uint64_t slot;

	entry.offset = bytes_u64(bytes);
	entry.length_bytes = bytes_u64(bytes);
	entry.state = bytes_u8(bytes);
	entry.source = bytes_u8(bytes);
	slot = (entry.sequence + bytes_u8(bytes)) % slots;
	if (entry.sequence > 60000) /* some are huge */
		entry.sequence = UINT64_MAX - (65535 - entry.sequence);
	if (entry.sequence > 60000)
		slot = entry.sequence % slots;
	format_poison_entry_pack(&raw, &entry, m->super.meta_uuid);
	if (flags & JOURNAL_RAW)
		raw.crc32c = le32_make(0);
	put_both(m, AREA_POISON_LOG, slot * sizeof(raw), &raw, sizeof(raw), copies);
}

static void do_patch(struct journal_medium *m, struct bytes *bytes)
{
	struct range area = area_of(m, bytes_u8(bytes) % JOURNAL_AREAS);
	uint64_t offset = bytes_u32(bytes) % area.length;
	size_t length = min_u64(bytes->left, area.length - offset);

	if (length)
		memcpy(medium_change(m->medium, area.offset + offset, length), bytes->at, length);
}

static void (*const doers[])(struct journal_medium *m, struct bytes *bytes) = {
	[JOURNAL_RECORD] = do_record, [JOURNAL_HEAD] = do_head,	  [JOURNAL_HOME] = do_home,   [JOURNAL_POISON] = do_poison,
	[JOURNAL_TEAR] = do_tear,     [JOURNAL_ENTRY] = do_entry, [JOURNAL_PATCH] = do_patch,
};

void journal_medium_spoil(struct journal_medium *m, const struct program *program)
{
	for (size_t i = 0; i < program->count; i++) {
		struct bytes bytes = order_bytes(&program->orders[i]);
		unsigned kind = program->orders[i].kind % JOURNAL_ORDERS;

		if (kind < ARRAY_SIZE(doers))
			doers[kind](m, &bytes);
	}
}
