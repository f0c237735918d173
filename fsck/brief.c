/*
 * A look at what says by itself that something is to be done, for a boot that must not wait. Clean: every superblock copy and poison log entry whole,
 * nothing in the journal to replay, no mark of lost metadata, no orphans and no operation half done, no failure that the ledger does not have yet.
 */
#include "fsck/internal.h"
#include "journal/root.h"

static int entry_is_left(void *arg, const struct poison_entry *entry)
{
	return 1;
}

static bool log_has_news(struct repair *repair)
{
	uint64_t tail = root_get(repair->journal, ROOT_POISON_LOG_TAIL);
	struct poison_log *log;
	bool news = true;

	if (poison_log_open(repair->media, &repair->super, &log))
		return true;
	poison_log_trim(log, tail);
	news = poison_log_walk(log, entry_is_left, NULL) != 0;
	poison_log_close(log);
	return news;
}

static bool journal_is_clean(struct repair *repair)
{
	const struct journal_recovery *recovery = journal_recovery(repair->journal);

	return !recovery->records && !recovery->discarded && !recovery->hole && !recovery->lost &&
	       !(root_get(repair->journal, ROOT_FLAGS) & ROOT_FLAG_METADATA_LOST) && !root_get(repair->journal, ROOT_ORPHANS) &&
	       !root_get(repair->journal, ROOT_INTENTS) && !log_has_news(repair);
}

bool repair_is_clean(struct repair *repair)
{
	struct journal_options options = {.readonly = true};
	struct why ignored;
	bool clean;

	if (repair->report->errors || repair->super.version < FORMAT_VERSION ||
	    journal_open(repair->media, &repair->super, &options, &ignored, &repair->journal))
		return false;
	clean = journal_is_clean(repair);
	journal_close(repair->journal);
	repair->journal = NULL;
	return clean;
}
