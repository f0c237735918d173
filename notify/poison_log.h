/*
 * The poison log: the durable record in front of the trees of what is bad. Read before anything else but the superblock;
 * appended with one line store per copy and a drain (PAGE: msync follows by the timer), under any lock, outside transactions.
 */
#ifndef NOTIFY_POISON_LOG_H
#define NOTIFY_POISON_LOG_H

#include "format/poison_format.h"
#include "format/super_format.h"
#include "media/media.h"

struct poison_log;

/*
 * Read both copies (a poisoned part of one is answered from the other; neither is fatal) and enter into media's known set what the entries come to
 * in order of sequence. CLEARED entries take out what older entries said, never what the known set had from elsewhere. Media are only read.
 */
int poison_log_open(struct media *media, const struct super *super, struct poison_log **out);
void poison_log_close(struct poison_log *log);
int poison_log_format(struct media *media, const struct super *super); /* mkfs: make stale entries of both copies unreadable: zero them; the caller syncs */
/*
 * Durable (BYTE, CACHELINE) on return, in at least one copy; slots that are known bad in both are passed over. -ENOSPC: full, the caller moves entries
 * to the trees first; the known set has the range anyway. The last quarter is kept for CLEARED entries. -EROFS, -EIO: no slot could be written.
 */
int poison_log_append(struct poison_log *log, struct poison_entry *entry /* sequence is filled in */);
/*
 * Sectors of either copy that overlap [start, end): made to say what the log says, bad ones cleared first. An entry is stored in whatever copy takes it, so
 * the copy that had the bad sector lags behind. 0; -ENOTSUP, -EIO: some cannot be cleared or written and are passed over as before; -EROFS. Nothing is drained: until
 * the next entry is durable, which may say that the range is good again, the other copy serves. The caller holds what poison_log_append()'s holds.
 */
int poison_log_rewrite(struct poison_log *log, devoff_t start, devoff_t end);
/* The same for all that can be read, and nothing is cleared: what a daemon that was killed left behind. */
void poison_log_catch_up(struct poison_log *log);
/* Entries not yet moved to the trees, oldest first: visit returns 0 to go on. */
int poison_log_walk(struct poison_log *log, int (*visit)(void *arg, const struct poison_entry *entry), void *arg);
/* Is this thread inside poison_log_append()? A fault met there must not append. */
bool poison_log_is_appending(void);
/* Everything below sequence is in the trees durably: slots may be reused; numbers below it are never given out again. */
void poison_log_trim(struct poison_log *log, uint64_t sequence);
uint64_t poison_log_next_sequence(struct poison_log *log);
/* More than half of the slots wait for poison_log_trim(). */
bool poison_log_wants_trim(struct poison_log *log);

#endif
