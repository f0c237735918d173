#include "util/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

static atomic_int log_threshold = LOG_LEVEL_INFO;
static atomic_int log_syslog_from = LOG_LEVEL_ERROR - 1; /* levels up to this go to syslog, the others to stderr */

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&log_threshold, (int)level, memory_order_relaxed);
}

static void log_open_syslog(const char *ident, enum log_level up_to)
{
	/* openlog() keeps the pointer, and what the caller passed may be argv, which it may
	 * overwrite. */
	static char kept[64];

	snprintf(kept, sizeof(kept), "%s", ident);
	openlog(kept, LOG_PID | LOG_NDELAY, LOG_DAEMON);
	atomic_store(&log_syslog_from, (int)up_to);
}

void log_to_syslog(const char *ident)
{
	log_open_syslog(ident, LOG_LEVEL_DEBUG);
}

void log_errors_to_syslog(const char *ident)
{
	log_open_syslog(ident, LOG_LEVEL_ERROR);
}

static int log_syslog_priority(enum log_level level)
{
	static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

	return priorities[level];
}

/* One write per line, so that lines of different threads and processes do not mix. */
static void log_write_stderr(enum log_level level, const char *text)
{
	static const char *const names[] = {"error: ", "warning: ", "", "debug: "};
	char line[2112];
	int n = snprintf(line, sizeof(line), "mendfs: %s%s\n", names[level], text);

	if (n >= (int)sizeof(line)) {
		n = sizeof(line) - 1;
		line[n - 1] = '\n';
	}
	if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nobody is left to be told */
}

void log_message(enum log_level level, const char *format, ...)
{
	char text[2048];
	va_list args;

	if ((int)level > atomic_load_explicit(&log_threshold, memory_order_relaxed))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if ((int)level <= atomic_load(&log_syslog_from))
		syslog(log_syslog_priority(level), "%s", text);
	else
		log_write_stderr(level, text);
}
