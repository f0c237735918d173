/* Messages of the daemon and the tools: stderr until log_to_syslog(), then syslog. Callable from any thread, under any lock. */
#ifndef UTIL_LOG_H
#define UTIL_LOG_H

enum log_level { LOG_LEVEL_SILENT = -1 /* for log_set_level() only */, LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_set_level(enum log_level level);
void log_to_syslog(const char *ident);
/* As a daemon starts: what is found wrong on the way goes to syslog, so that stderr gets the one line that its caller prints at the end.
 * Warnings and information still go to stderr. */
void log_errors_to_syslog(const char *ident);
void log_message(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_message(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_message(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_message(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_message(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
