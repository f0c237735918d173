#include "tests/fuzz/seal.h"

#include <string.h>

#include "format/journal_format.h"
#include "format/poison_format.h"
#include "format/super_format.h"
#include "util/crc.h"

void seal_bytes(uint8_t *bytes, size_t length, size_t crc_at)
{
	struct le32 crc = {0};

	memcpy(bytes + crc_at, &crc, sizeof(crc));
	crc = le32_make(crc32c(0, bytes, length));
	memcpy(bytes + crc_at, &crc, sizeof(crc));
}

void seal_super(uint8_t *bytes)
{
	seal_bytes(bytes, BLOCK_BYTES, offsetof(struct format_super, crc32c));
}

static_assert(offsetof(struct format_block_header, crc32c) == 4 && offsetof(struct format_journal_head, crc32c) == 4 &&
		      offsetof(struct format_record_header, crc32c) == 4 && offsetof(struct format_poison_entry, crc32c) == 4,
	      "one place for all of them");

void seal_struct(uint8_t *bytes, size_t length)
{
	seal_bytes(bytes, length, 4);
}
